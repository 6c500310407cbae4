// What a saved file is called, and the command that uses it, ready to be copied.

export function showSaved(place, { file, command }) {
  const line = el("code", { tabindex: "0" }, command);
  const copy = button({ onclick: () => copyLine(line, copy) }, "Copy");
  place.replaceChildren(el("p", {}, "Saved ", el("code", {}, file), ". The masks with it:"),
    el("div", { class: "command" }, line, copy));
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
