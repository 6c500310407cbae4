// Saving what was changed: the files, and the command that uses them, ready to be copied.

import { post } from "./api.js";
import { areWordsChanged, areWordsSaved, change, changedClasses, onChange, sameLists, state } from "./state.js";
import { attempt } from "./trouble.js";

/** Write words and tags. A file that the explorer has not written is replaced only if that is wanted. */
function save(replace = false) {
  const { words } = state;
  return attempt(async () => {
    byId("save").disabled = true;
    byId("saved").replaceChildren(el("p", { class: "muted" }, "Saving …"));
    try {
      showSaved(await post("api/save", { ...words, replace }));
      change({ savedWords: words, areTagsSaved: true });
    } catch (error) {
      byId("saved").replaceChildren();
      refresh();
      if (error.status !== 409) throw error;
      byId("saved").append(el("p", { class: "problem" }, error.message),
        button({ onclick: () => save(true) }, "Replace it"));
    }
  });
}

/** What was saved is not what is shown any more. */
export function forgetSaved() { byId("saved").replaceChildren(); }

function refresh() {
  const { changedTags, areTagsSaved, words, run } = state, changes = [];
  const say = (what, isSaved) => changes.push(`${what}: ${isSaved ? "saved" : "not saved"}`);
  if (areWordsChanged() || !areWordsSaved()) {
    const parts = [...changedClasses(), ...(sameLists(words.templates, run.words.templates) ? [] : ["templates"])];
    say(parts.length ? `words of ${parts.join(", ")}` : "words as in the store", areWordsSaved());
  }
  if (changedTags || !areTagsSaved) say(`tags of ${changedTags} image${changedTags === 1 ? "" : "s"}`, areTagsSaved);
  byId("save").disabled = areWordsSaved() && areTagsSaved;
  byId("changes").textContent = changes.join("; ") || "no changes";
}

function showSaved({ files, command, note }) {
  const names = files.flatMap((file, k) => [k ? " and " : "", el("code", {}, file)]);
  const saved = files.length ? ["Saved ", ...names, ". "] : [];
  // Broken between words only: each stands in one piece.
  const words = command.split(" ").flatMap((word, k) => [k ? " " : "", el("span", {}, word)]);
  const line = el("code", { tabindex: "0" }, ...words), copy = button({ onclick: () => copyLine(line, copy) }, "Copy");
  byId("saved").replaceChildren(el("p", {}, ...saved, "To make all masks so:"),
    el("div", { class: "command" }, line, copy));
  if (note) byId("saved").append(el("p", { class: "muted" }, note));
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

export function startSaving() {
  byId("save").onclick = () => save();
  onChange(refresh);
}
