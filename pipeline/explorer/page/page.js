// The start; the buttons above and the legend below the panes; the keyboard.

import { get } from "./api.js";
import { goTo, reload, showImage, startList, step } from "./list.js";
import { changePane, closePane, nextPane, pan, splitPane, startPanes, zoomBy, zoomToFit } from "./panes.js";
import { redraw } from "./redraw.js";
import {
  BEFORE, NOW, areWordsSaved, change, classes, layers, onChange, shownLayer, sources, state,
} from "./state.js";
import { startSaving } from "./saved.js";
import { believeSuspicion, startTags, undoTag } from "./tags.js";
import { attempt, startTrouble } from "./trouble.js";
import { keptWords, startWords } from "./words.js";

const ZOOM = 1.5, OPACITY = 0.1, PAN = 0.15; // of one press of a key

const active = () => state.panes[state.active];

// ---- What people do ------------------------------------------------------------------------------------------------

function showLayer(key) {
  if (state.run.layers.includes(key)) change({ view: key });
  changePane(state.active, { layer: key });
}

function stepLayer(by) {
  const keys = layers().map(({ key }) => key), at = keys.indexOf(shownLayer(active()).key);
  showLayer(keys.at((at + by) % keys.length));
}

let beforePhoto = null; // the layer that was shown before the photo alone

function togglePhoto() {
  const { layer } = active();
  if (layer !== "photo") beforePhoto = layer;
  showLayer(layer === "photo" ? beforePhoto ?? state.view : "photo");
}

function toggleBefore() {
  if (!sources().some(({ key }) => key === BEFORE)) return;
  changePane(state.active, { of: active().of === BEFORE ? NOW : BEFORE });
}

function stepClass(by) { change({ classId: (state.classId + by + classes().length) % classes().length }); }

function toggleAlone(id = state.classId) { change({ classId: id, isAlone: !(state.isAlone && id === state.classId) }); }

function setOpacity(opacity) { change({ opacity: Math.min(1, Math.max(0, opacity)) }); }

function showPanel(panel) { change({ panel }); }

/** What is agreed to is seen first. */
function agree() {
  if (state.panel === "tags") believeSuspicion();
  else showPanel("tags");
}

// ---- Drawing -------------------------------------------------------------------------------------------------------

function refresh() {
  const { image, classId, isAlone } = state, shown = shownLayer(active());
  byId("image-name").textContent = byId("image-name").title = image?.id ?? "";
  const all = layers();
  redraw(byId("layers"), all.map(({ key, label, short }) => [key, short ?? label]), () =>
    all.map(({ key, label, short }, k) => button({ onclick: () => showLayer(key) },
      el("kbd", { "aria-hidden": "true" }, String(k + 1)), short ?? label)));
  [...byId("layers").children].forEach((child, k) =>
    fill(child, { "aria-pressed": String(all[k].key === shown.key), title: `${all[k].label}: key ${k + 1}` }));
  byId("opacity").value = state.opacity;
  [...byId("legend").children].forEach((child, id) => {
    child.setAttribute("aria-pressed", String(isAlone && id === classId));
    child.setAttribute("aria-current", String(id === classId));
    child.classList.toggle("absent", Boolean(image?.is_made) && !image.tags.includes(id));
  });
  for (const panel of ["tags", "words"]) {
    const isShown = panel === state.panel;
    fill(byId(`tab-${panel}`), { "aria-selected": String(isShown), tabindex: isShown ? "0" : "-1" });
    byId(`panel-${panel}`).hidden = !isShown;
  }
}

function drawHeader() {
  const { name, dataset, split, images, problems } = state.run;
  document.title = `${name} – carbseg explore`;
  byId("title").textContent = byId("title").title = name;
  byId("subtitle").textContent = `${dataset} ${split}, ${images} images`;
  byId("problems").replaceChildren(...problems.map((problem) => el("li", {}, problem)));
  byId("empty").hidden = images > 0;
}

function makeLegend() {
  byId("legend").append(...classes().map(({ name, colour }, id) =>
    button({ class: "class", title: `${name}: alone, or all again`, onclick: () => toggleAlone(id) },
      swatch(rgb(colour)), el("span", { class: "clip" }, name))));
}

// ---- Keyboard ------------------------------------------------------------------------------------------------------

const KEYS = {
  ArrowLeft: () => attempt(() => step(-1)),
  ArrowRight: () => attempt(() => step(1)),
  PageUp: () => attempt(() => step(-1)),
  PageDown: () => attempt(() => step(1)),
  ArrowUp: () => stepLayer(-1),
  ArrowDown: () => stepLayer(1),
  p: togglePhoto,
  b: toggleBefore,
  ",": () => stepClass(-1),
  ".": () => stepClass(1),
  a: () => toggleAlone(),
  o: () => setOpacity(state.opacity + OPACITY),
  O: () => setOpacity(state.opacity - OPACITY),
  "+": () => zoomBy(ZOOM),
  "-": () => zoomBy(1 / ZOOM),
  "=": zoomToFit,
  s: splitPane,
  c: () => closePane(),
  n: nextPane,
  y: agree,
  t: () => showPanel("tags"),
  w: () => showPanel("words"),
  "/": () => byId("query").focus(),
  "?": () => byId("help").showModal(),
};
const PANS = { ArrowLeft: [-PAN, 0], ArrowRight: [PAN, 0], ArrowUp: [0, -PAN], ArrowDown: [0, PAN] };

function onKey(event) {
  const { key, target, shiftKey } = event;
  if (byId("help").open || event.altKey) return;
  if (target.matches("input:not([type=range]), textarea, select")) {
    if (key === "Escape") target.blur();
    return;
  }
  const isUndo = (event.ctrlKey || event.metaKey) && key.toLowerCase() === "z" && !shiftKey;
  const act = event.ctrlKey || event.metaKey ? isUndo && undoTag : actOf(key, shiftKey, target);
  if (!act) return;
  event.preventDefault();
  if (state.image || key === "?") act();
}

function actOf(key, shiftKey, target) {
  if (target.matches("[role=tab], [type=range]") && /^Arrow|^Page/.test(key)) return null; // they have their own
  if (shiftKey && PANS[key]) return () => pan(...PANS[key]);
  if (/^[1-9]$/.test(key)) {
    const layer = layers()[Number(key) - 1];
    return layer ? () => showLayer(layer.key) : null;
  }
  return Object.hasOwn(KEYS, key) ? KEYS[key] : null;
}

function onTabKey({ key }) {
  if (key !== "ArrowLeft" && key !== "ArrowRight") return;
  showPanel(state.panel === "tags" ? "words" : "tags");
  byId(`tab-${state.panel}`).focus();
}

// ---- Start ---------------------------------------------------------------------------------------------------------

function listen() {
  byId("zoom-out").onclick = () => zoomBy(1 / ZOOM);
  byId("zoom-in").onclick = () => zoomBy(ZOOM);
  byId("zoom-fit").onclick = zoomToFit;
  byId("split").onclick = splitPane;
  byId("opacity").oninput = ({ target }) => setOpacity(Number(target.value));
  byId("show-help").onclick = () => byId("help").showModal();
  byId("tabs").addEventListener("keydown", onTabKey);
  for (const panel of ["tags", "words"]) byId(`tab-${panel}`).onclick = () => showPanel(panel);
  document.addEventListener("keydown", onKey);
  window.addEventListener("beforeunload", (event) => {
    if (!areWordsSaved()) event.preventDefault();
  });
}

async function start() {
  const run = await get("api/run");
  const view = run.layers.at(-1) ?? "photo", others = run.stores.slice(1, 4);
  state.panes = [{ layer: view, of: NOW }, ...others.map(({ key }) => ({ layer: view, of: key }))];
  Object.assign(state, { run, view, words: run.words, ...keptWords(run) });
  Object.assign(state, { changedTags: run.changed_tags, areTagsSaved: run.are_tags_saved, canUndo: run.can_undo });
  drawHeader();
  if (!run.images) return;
  for (const id of ["images", "middle", "side"]) byId(id).hidden = false;
  makeLegend();
  onChange(refresh);
  startPanes();
  startList();
  startTags();
  startWords();
  startSaving();
  listen();
  const row = Number(location.hash.slice(1) || NaN);
  if (row >= 0 && row < run.images) await showImage(row);
  await reload();
  if (!state.image) await goTo(0);
}

startTrouble();
attempt(start);
