// The panes: pictures that zoom and move in step, pointers on them, and the pixel under the pointer in words.

import { photo } from "./api.js";
import { fights, isHeat, isOfView, keyOf, layerOf, miou } from "./painting.js";
import { MAX_PANES, change, onChange, shownLayer, sources, state } from "./state.js";

const CAPTION_PX = 34; // as .caption in page.css

const zoom = new Zoom(); // of all panes
const drawn = []; // of each pane: its elements, and what is on its canvas
let underPointer = null; // [x, y] in pixels of the image
let leaving = new AbortController(), row = null, isDue = false;

// ---- Panes come and go ---------------------------------------------------------------------------------------------

function makePane() {
  const pane = { key: "", photo: null, content: null };
  const at = () => drawn.indexOf(pane);
  pane.caption = el("strong", { class: "clip" });
  pane.view = el("select", { "aria-label": "whose scores these are",
    onchange: ({ target }) => change({ view: target.value }) });
  pane.ramp = el("span", { class: "muted" }, "low ", el("i", { class: "ramp" }), " high");
  pane.score = el("span", { class: "muted", title: "in this image" });
  pane.of = el("select", { "aria-label": "whose masks this pane shows",
    onchange: ({ target }) => changePane(at(), { of: target.value }) });
  pane.close = button({ "aria-label": "close this pane", title: "key c", onclick: () => closePane(at()) }, "×");
  pane.canvas = el("canvas", { tabindex: "0", role: "img", onfocus: () => choosePane(at()) });
  pane.note = el("p", { class: "note", role: "status" });
  const { caption, view, of, score, ramp, close } = pane;
  pane.element = el("div", { class: "pane" }, el("div", { class: "caption" }, caption, view, of, score, ramp, close),
    el("div", { class: "picture" }, pane.canvas, pane.note));
  listen(pane.canvas, at);
  return pane;
}

export function changePane(place, changes) {
  change({ panes: state.panes.map((pane, k) => (k === place ? { ...pane, ...changes } : pane)), active: place });
}

function choosePane(place) { if (place !== state.active) change({ active: place }); }

/** The next pane; after the last comes the first. */
export function nextPane() {
  choosePane((state.active + 1) % state.panes.length);
  drawn[state.active].canvas.focus({ preventScroll: true });
}

/** One more: what the chosen pane shows, from the next source; beside a mask from the only source, the photo. */
export function splitPane() {
  if (state.panes.length === MAX_PANES) return;
  const pane = state.panes[state.active], keys = sources().map(({ key }) => key);
  const of = keys.find((key) => !state.panes.some((other) => other.of === key));
  const other = of ? { ...pane, of } : { ...pane, layer: pane.layer === "photo" ? state.view : "photo" };
  change({ panes: [...state.panes, other], active: state.panes.length });
}

export function closePane(place = state.active) {
  if (state.panes.length === 1) return;
  const panes = state.panes.filter((_, k) => k !== place);
  change({ panes, active: Math.min(panes.length - 1, state.active - (place < state.active ? 1 : 0)) });
  drawn[state.active].canvas.focus({ preventScroll: true });
}

function refresh() {
  while (drawn.length < state.panes.length) drawn.push(makePane());
  drawn.length = state.panes.length;
  const box = byId("panes"), elements = drawn.map(({ element }) => element);
  if (box.children.length !== elements.length) box.replaceChildren(...elements);
  byId("split").disabled = drawn.length === MAX_PANES;
  if (state.image && state.image.row !== row) leave();
  drawn.forEach(describe);
  drawSoon();
}

/** To another image: what is still under way for the last one is not needed any more. */
function leave() {
  row = state.image.row;
  leaving.abort();
  leaving = new AbortController();
  underPointer = null;
  zoom.isFit = true;
}

function describe(pane, place) {
  const wanted = state.panes[place], layer = state.image ? shownLayer(wanted) : null, from = sources();
  const isOfStore = layer !== null && !["photo", "truth", "changed", "word"].includes(layer.key);
  pane.element.setAttribute("aria-current", String(drawn.length > 1 && place === state.active));
  pane.caption.textContent = layer?.label ?? "";
  pane.view.hidden = state.run.layers.length < 2 || !isOfView(layer?.key);
  setOptions(pane.view, state.run.layers.map((key) => [key, key]), state.view);
  pane.ramp.hidden = !isHeat(layer?.key);
  pane.of.hidden = from.length < 2 || !isOfStore;
  setOptions(pane.of, from.map(({ key, label }) => [key, label]), wanted.of);
  pane.close.hidden = drawn.length === 1;
  if (!layer) return;
  pane.canvas.setAttribute("aria-label", `${layer.label} of ${state.image.id}`);
  const key = keyOf(wanted, layer.key);
  if (key === pane.key) return;
  pane.key = key;
  load(pane, wanted, layer.key);
}

/** What was drawn stays until the new picture is there; then it, or why there is none. */
async function load(pane, wanted, layer) {
  const { key } = pane, { signal } = leaving;
  pane.element.setAttribute("aria-busy", "true");
  pane.score.textContent = "";
  const parts = await Promise.allSettled([
    photo(`api/images/${state.image.row}/photo`, signal),
    layerOf(wanted, layer, signal),
    layer === "contest" ? fights(wanted, signal) : "",
  ]);
  if (pane.key !== key || signal.aborted) return;
  const [image, content, said] = parts.map(({ value }) => value ?? null);
  const failed = parts.find(({ status }) => status === "rejected"), isLacking = layer !== wanted.layer;
  if (failed) pane.key = ""; // it is asked for again when something changes
  pane.note.textContent = failed ? failed.reason.message : isLacking ? lacking() : said;
  Object.assign(pane, { photo: image, content });
  pane.element.setAttribute("aria-busy", "false");
  pane.element.dataset.layer = layer; // what is seen by now
  drawSoon();
  showScore(pane, wanted, layer);
}

/** How right the masks of this image are, said once they are seen. */
async function showScore(pane, wanted, layer) {
  const { key } = pane;
  if (!state.run.has_truth || !state.run.layers.includes(layer)) return;
  const score = await miou(wanted, layer, leaving.signal).catch(() => null); // the pane has said what is wrong
  if (pane.key === key && score !== null) pane.score.textContent = `mIoU ${score.toFixed(1)}`;
}

/** Why a pane shows the photo, though it is set to something else. */
function lacking() {
  return state.image.is_made ? "" : "No pseudo-labels of this image yet: “carbseg labels”, given again, makes them.";
}

// ---- Drawing -------------------------------------------------------------------------------------------------------

export function zoomBy(factor) {
  zoom.by(factor, zoom.canvas[0] / 2, zoom.canvas[1] / 2);
  drawSoon();
}

export function zoomToFit() {
  zoom.fit();
  drawSoon();
}

/** By shares of a pane. */
export function pan(x, y) {
  zoom.drag(-x * zoom.canvas[0], -y * zoom.canvas[1]);
  drawSoon();
}

function drawSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (!state.image || !drawn.length) return;
    const size = sizeOfImage(), { canvas } = drawn[0];
    if (!size) return; // nothing is there yet
    arrange(...size);
    zoom.resize([canvas.clientWidth, canvas.clientHeight], size);
    drawn.forEach((pane) => draw(pane));
    readOut();
  });
}

/** [width, height]; of the photo where the store does not know; null before that is there. */
function sizeOfImage() {
  const { width, height } = state.image.width ? state.image : (drawn.find((pane) => pane.photo)?.photo ?? {});
  return width ? [width, height] : null;
}

/** As many columns as make the pictures largest. */
function arrange(width, height) {
  const box = byId("panes"), { clientWidth, clientHeight } = box, count = drawn.length;
  const scale = (columns) =>
    Math.min(clientWidth / columns / width, (clientHeight / Math.ceil(count / columns) - CAPTION_PX) / height);
  const columns = [1, 2].reduce((best, other) => (scale(other) > scale(best) ? other : best));
  box.style.setProperty("--columns", columns);
  box.style.setProperty("--shape", width / height);
}

function draw(pane) {
  const { canvas } = pane, ratio = window.devicePixelRatio, [width, height] = zoom.canvas;
  canvas.style.touchAction = zoom.isFit ? "pan-y" : "none"; // a finger scrolls the page, or moves the image
  Object.assign(canvas, { width: Math.round(ratio * width), height: Math.round(ratio * height) });
  const context = canvas.getContext("2d"), [wide, high] = zoom.image.map((size) => zoom.scale * size);
  context.scale(ratio, ratio);
  const corner = [-zoom.scale * zoom.left, -zoom.scale * zoom.top];
  if (pane.photo) {
    context.imageSmoothingEnabled = wide < 6 * pane.photo.width;
    context.drawImage(pane.photo, ...corner, wide, high);
  }
  if (pane.content) {
    context.globalAlpha = state.opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(pane.content.overlay, ...corner, wide, high);
    context.globalAlpha = 1;
  }
  if (underPointer && drawn.length > 1) drawCross(context);
}

/** Where the pointer is in the pane that it points at. */
function drawCross(context) {
  const [x, y] = underPointer.map((at, k) => zoom.scale * (at + 0.5 - [zoom.left, zoom.top][k]));
  const lines = new Path2D(`M${x - 9} ${y}H${x + 9}M${x} ${y - 9}V${y + 9}`);
  for (const [width, colour] of [[3, "#000a"], [1, "#fff"]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke(lines);
  }
}

function readOut() {
  const said = drawn.filter(({ content }) => content && underPointer)
    .map(({ caption, content }) => `${caption.textContent}: ${content.say(placeIn(content, underPointer))}`);
  const place = underPointer ? [`x ${underPointer[0]}, y ${underPointer[1]}`] : [];
  byId("readout").textContent = [...place, ...said].join(" · ");
}

/** Where a pixel of the image stands in a layer's values. */
function placeIn({ overlay }, [x, y]) {
  const [width, height] = zoom.image;
  return Math.floor((y * overlay.height) / height) * overlay.width + Math.floor((x * overlay.width) / width);
}

// ---- Pointers ------------------------------------------------------------------------------------------------------

function listen(canvas, at) {
  canvas.addEventListener("pointerdown", (event) => zoom.down(event));
  canvas.addEventListener("pointermove", onMove);
  canvas.addEventListener("pointerup", (event) => onUp(event, at()));
  canvas.addEventListener("pointercancel", (event) => onUp(event, at()));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("wheel", onWheel, { passive: false });
  canvas.addEventListener("dblclick", ({ offsetX, offsetY }) => {
    if (zoom.isFit) zoom.by(3, offsetX, offsetY);
    else zoom.fit();
    drawSoon();
  });
  new ResizeObserver(drawSoon).observe(canvas);
}

function point(pixel) {
  underPointer = pixel;
  drawSoon();
}

function onMove(event) {
  if (zoom.move(event)) drawSoon();
  else if (!zoom.isHeld) point(zoom.pixel(event.offsetX, event.offsetY));
}

function onUp(event, place) {
  const pixel = zoom.up(event) ? zoom.pixel(event.offsetX, event.offsetY) : null;
  if (!pixel) return;
  point(pixel);
  chooseClassAt(drawn[place], pixel);
}

/** The class that a pane shows at a pixel becomes the chosen one, so that its words are at hand. */
function chooseClassAt({ content }, pixel) {
  const id = content?.ids?.[placeIn(content, pixel)];
  if (state.run.classes[id]) change({ classId: id });
}

function onWheel(event) {
  event.preventDefault();
  zoom.wheel(event);
  point(zoom.pixel(event.offsetX, event.offsetY));
}

export function startPanes() { onChange(refresh); }
