// The panel Words: the words and templates of the classes, what they move, and any other word.

import { get, post } from "./api.js";
import { withWord, withWords } from "./asking.js";
import { changePane } from "./panes.js";
import { redraw } from "./redraw.js";
import { forgetSaved } from "./saved.js";
import {
  areWordsChanged, change, changedClasses, className, classes, colourOf, onChange, percent, state,
} from "./state.js";
import { attempt } from "./trouble.js";

const TRIED = 20; // images of a trial
const POLL_MS = 500, LOOKING_MS = 300; // time between two questions how far a trial is; how far CLIP is
const MOVES = 6, LEAST = 0.0005; // that are listed, of at least that share of the pixels

let tried = 0; // number of the trial that is shown

function chosen() { return className(state.classId); }

/** Other words, or other templates, instead of what there was. */
function edit(changes) {
  forgetTrial();
  forgetSaved();
  change({ words: { ...state.words, ...changes } });
}

function forgetTrial() {
  tried += 1;
  byId("tried").replaceChildren();
  byId("try-progress").hidden = true;
}

function setWords(name, words) { edit({ classes: { ...state.words.classes, [name]: words } }); }

/** One word, or some with commas between them. */
function addWords(typed) {
  const words = state.words.classes[chosen()], all = typed.split(",").map((word) => word.trim()).filter(Boolean);
  const more = [...new Set([...words, ...all])];
  if (more.length > words.length) setWords(chosen(), more);
}

function removeWord(word) {
  setWords(chosen(), state.words.classes[chosen()].filter((other) => other !== word));
  byId("add-word").firstElementChild.focus();
}

// ---- What was edited outlives a reload of the page, and what was saved the end of the explorer ----------------------

const keptAs = `words of ${location.pathname}`;

function keepWords() { sessionStorage.setItem(keptAs, JSON.stringify([state.words, state.savedWords])); }

export function keptWords(run) {
  const [words, savedWords] = JSON.parse(sessionStorage.getItem(keptAs) ?? "[]");
  if (words) return { words, savedWords };
  const { kept_words: kept } = run;
  return { words: kept, savedWords: kept };
}

// ---- Drawing -------------------------------------------------------------------------------------------------------

let shownTemplates = null;

function refresh() {
  const { words, run, classId } = state, isChanged = areWordsChanged(), changed = changedClasses();
  const marked = classes().map(({ name }, id) => [String(id), changed.includes(name) ? `${name} (changed)` : name]);
  setOptions(byId("word-class"), marked, String(classId));
  const list = words.classes[chosen()], saved = run.words.classes[chosen()];
  redraw(byId("words"), [list, saved], () =>
    list.map((word) => makeWord(word, list.length === 1, !saved.includes(word))));
  byId("templates-count").textContent = `Templates (${words.templates.length})`;
  if (words.templates !== shownTemplates) byId("templates").value = words.templates.join("\n");
  shownTemplates = words.templates;
  byId("reset-class").disabled = !changed.includes(chosen());
  for (const id of ["reset-words", "try"]) byId(id).disabled = !isChanged;
  drawMoved();
}

function makeWord(word, isOnly, isNew) {
  const remove = button({ "aria-label": `remove ${word}`, onclick: () => removeWord(word) }, "×");
  remove.disabled = isOnly;
  if (isOnly) remove.title = "a class needs a word: add another one first";
  return el("li", { class: isNew ? "word new" : "word" }, el("span", {}, word), remove);
}

let moved = null; // the promise that is shown, or waited for

/** What the edited words change in this image. */
function drawMoved() {
  const place = byId("moved"), isChanged = areWordsChanged();
  const promise = isChanged && state.image?.is_made ? withWords() : null;
  if (!promise) {
    const why = isChanged ? "Not known before the pseudo-labels are made." : "Nothing: the words are the store's.";
    place.replaceChildren(el("p", { class: "muted" }, why));
  }
  if (promise === moved) return;
  moved = promise;
  if (!promise) return;
  place.setAttribute("aria-busy", "true");
  showLooking(promise);
  promise.then((answer) => {
    if (promise !== moved) return;
    const from = answer.source === "cache" ? "from the cache" : "CLIP looked at the image";
    place.replaceChildren(...unknownWords(answer), ...effect(answer, "in this image"),
      el("p", { class: "muted" }, `${from}, ${answer.seconds.toFixed(1)} s`),
      button({ onclick: () => changePane(state.active, { layer: "changed" }) }, "Show what changed"));
    place.setAttribute("aria-busy", "false");
  }, (error) => {
    if (promise !== moved || error.name === "AbortError") return;
    place.replaceChildren(el("p", { class: "problem" }, error.message));
    place.setAttribute("aria-busy", "false");
  });
}

/** What CLIP does, if that takes long: it is loaded first, and looks at each image once. */
async function showLooking(promise) {
  const isWaited = () => promise === moved && byId("moved").getAttribute("aria-busy") === "true";
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, LOOKING_MS); });
    if (!isWaited()) return;
    const { is_loading: isLoading, share } = await get("api/looking").catch(() => ({ is_loading: false, share: null }));
    if (!isWaited()) return;
    if (isLoading) showProgress("CLIP is being loaded …", {});
    else if (share !== null) showProgress("CLIP looks at this image …", { value: share });
  }
}

function showProgress(what, value) {
  byId("moved").replaceChildren(el("p", { class: "muted" }, what), el("progress", { ...value, "aria-label": what }));
}

/** What is not to be believed. */
function unknownWords({ unknown }) {
  const said = unknown.map((word) => `“${word}”`).join(", ");
  return unknown.length
    ? [el("p", { class: "problem" }, `CLIP does not know ${said}: to it, all unknown words are the same one.`)] : [];
}

/** A line of a score in percent, before and after; none where nobody knows. */
function score(what, before, after) {
  if (before == null || after == null) return [];
  const [was, is] = [before.toFixed(1), after.toFixed(1)], gain = is - was; // of what is said
  const said = gain < 0 ? `−${(-gain).toFixed(1)}` : `+${gain.toFixed(1)}`;
  return [el("p", {}, `${what} ${was} → ${is} `,
    gain ? el("strong", { class: gain < 0 ? "worse" : "better" }, said) : "(as before)")];
}

/** How much changed class, between which classes, and whether it is for the better. */
function effect({ changed_pixels: share, moves, ...scores }, where) {
  const changed = el("strong", {}, percent(share));
  const lines = [el("p", { class: "change" }, changed, ` of the pixels changed class ${where}`)];
  lines.push(...score("mIoU", scores.miou_before, scores.miou_after));
  for (const name of changedClasses()) {
    const id = classes().findIndex((other) => other.name === name);
    lines.push(...score(`IoU of ${name}`, scores.iou_before[id], scores.iou_after[id]));
  }
  const listed = moves.filter((move) => move.share >= LEAST).slice(0, MOVES);
  const parts = listed.map(({ from, to, share: part }) => el("li", {},
    swatch(rgb(colourOf(from))), ` ${className(from)} → `, swatch(rgb(colourOf(to))), ` ${className(to)} `,
    el("span", { class: "muted" }, percent(part))));
  return [...lines, el("ul", { class: "moves" }, ...parts)];
}

// ---- Trying, asking, saving ----------------------------------------------------------------------------------------

async function tryWords() {
  forgetTrial();
  const turn = tried, bar = byId("try-progress");
  const { job } = await post("api/try", { ...state.words, layer: state.view, images: TRIED });
  for (;;) {
    const { state: at, done, total, error, result } = await get(`api/jobs/${encodeURIComponent(job)}`);
    if (turn !== tried) return;
    Object.assign(bar, { hidden: at !== "running", max: total || TRIED, value: done });
    if (at === "failed") byId("tried").replaceChildren(el("p", { class: "problem" }, error));
    if (at === "done") byId("tried").replaceChildren(...effect(result, `in ${result.images} images`));
    if (at !== "running") return;
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
  }
}

function askWord(word) {
  if (!word) return;
  change({ word });
  changePane(state.active, { layer: "word" });
}

async function drawAsked() {
  const { word, image } = state;
  byId("asked").replaceChildren();
  if (!word || !image?.is_made) return;
  const owner = classes().find(({ name }) => state.words.classes[name].includes(word));
  if (owner) {
    byId("asked").append(el("p", {}, `“${word}” is a word of ${owner.name} already.`));
    return;
  }
  const answer = await withWord();
  if (word !== state.word || image.row !== state.image.row) return;
  byId("asked").replaceChildren(...unknownWords(answer),
    el("p", {}, `“${word}” would win ${percent(answer.share)} of this image.`));
}

/** What a form's field says, which is empty then. */
function taken(event) {
  event.preventDefault();
  const field = event.target.querySelector("input"), text = field.value.trim();
  field.value = "";
  return text;
}

export function startWords() {
  const { clip, words } = state.run;
  byId("no-words").textContent = clip;
  byId("no-words").hidden = clip === null;
  byId("words-editor").hidden = clip !== null;
  byId("word-class").onchange = ({ target }) => change({ classId: Number(target.value) });
  byId("add-word").onsubmit = (event) => addWords(taken(event));
  byId("templates").onchange = ({ target }) =>
    edit({ templates: target.value.split("\n").map((line) => line.trim()).filter(Boolean) });
  byId("reset-class").onclick = () => setWords(chosen(), words.classes[chosen()]);
  byId("reset-words").onclick = () => edit(words);
  byId("try").onclick = () => attempt(tryWords);
  byId("ask").onsubmit = (event) => askWord(taken(event));
  onChange(refresh);
  onChange(keepWords);
  onChange(() => drawAsked().catch((error) => {
    if (error.name !== "AbortError") byId("asked").textContent = error.message;
  }));
}
