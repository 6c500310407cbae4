// The line that says what went wrong, until something works again or it is closed.

import { Refused } from "./api.js";

/** What `work` gives; undefined if it failed, which is said. */
export async function attempt(work) {
  try {
    const result = await work();
    byId("trouble").hidden = true;
    return result;
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    byId("trouble").firstElementChild.textContent = error.message;
    byId("trouble").hidden = false;
    if (error instanceof Refused) return undefined;
    throw error; // a mistake of this page: the console shows where
  }
}

export function startTrouble() {
  byId("trouble").lastElementChild.onclick = () => { byId("trouble").hidden = true; };
}
