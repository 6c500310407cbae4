// Saving a file: what it is called, and the command that uses it, ready to be copied.

import { post } from "./api.js";
import { attempt } from "./trouble.js";

/** Say in `place` what was saved, and call `done`. A file that somebody else wrote is replaced only if that is wanted.
 */
export function save(path, data, place, done) {
  return attempt(async () => {
    try {
      showSaved(place, await post(path, data));
      done();
    } catch (error) {
      if (error.status !== 409) throw error;
      const replace = button({ onclick: () => save(path, { ...data, replace: true }, place, done) }, "Replace it");
      place.replaceChildren(el("p", { class: "problem" }, error.message), replace);
    }
  });
}

function showSaved(place, { files, command, note }) {
  const names = files.flatMap((file, k) => [k ? " and " : "", el("code", {}, file)]);
  place.replaceChildren(el("p", {}, "Saved ", ...names, command ? ". The masks with that:" : "."));
  if (command) {
    const line = el("code", { tabindex: "0" }, command), copy = button({ onclick: () => copyLine(line, copy) }, "Copy");
    place.append(el("div", { class: "command" }, line, copy));
  }
  if (note) place.append(el("p", { class: "muted" }, note));
}

async function copyLine(line, copy) {
  try {
    await navigator.clipboard.writeText(line.textContent);
    copy.textContent = "Copied";
  } catch { // not allowed: it is there to be copied by hand
    getSelection().selectAllChildren(line);
    copy.textContent = "Press Ctrl+C";
  }
}
