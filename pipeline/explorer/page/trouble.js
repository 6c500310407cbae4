// The line that says what went wrong, until something that a person does works again, or it is closed.

import { Refused } from "./api.js";

export function tell(error) {
  if (error.name === "AbortError") return;
  byId("trouble").firstElementChild.textContent = error.message;
  byId("trouble").hidden = false;
  if (!(error instanceof Refused)) throw error; // a mistake of this page: the console shows where
}

/** What a person wants; if it fails, that is said. */
export async function attempt(work) {
  try {
    await work();
    byId("trouble").hidden = true;
  } catch (error) {
    tell(error);
  }
}

export function startTrouble() {
  byId("trouble").lastElementChild.onclick = () => { byId("trouble").hidden = true; };
}
