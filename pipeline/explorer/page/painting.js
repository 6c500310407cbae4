// From a layer to colours: which pictures it needs, and what each value becomes.

import { get, gray } from "./api.js";
import { withWord, withWords } from "./asking.js";
import { BEFORE, NOW, className, colourOf, percent, state } from "./state.js";

const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // as .ramp in page.css
const UNCHANGED = pack([16, 20, 27], 220);
const NONE = 255; // no class

/** Whether a layer shows how much, not which class. */
export function isHeat(layer) { return ["score", "contest", "word"].includes(layer); }

/** Whether it shows that of the chosen one of global, local and fused. */
export function isOfView(layer) { return isHeat(layer) || layer === "changed"; }

/** What a pane's picture depends on, besides opacity and zoom. */
export function keyOf(pane, layer) {
  const { image, view, classId, isAlone, words, word, tagTurn } = state;
  const isOfStore = layer !== "photo" && layer !== "truth", isOfClass = layer === "score" || isAlone;
  return JSON.stringify([image.row, layer, isOfStore && [pane.of, words, tagTurn], isOfView(layer) && view,
    isOfClass && [classId, isAlone], layer === "word" && word]);
}

/** What lies over the photo: {overlay, ids, say}, a picture, its classes if it shows any, and what a place in it says.
 * null for the photo alone. */
export async function layerOf(pane, layer, signal) {
  if (layer === "photo") return null;
  if (layer === "changed") return changedOf(signal);
  const map = await gray(await address(pane.of, layer), signal);
  if (isHeat(layer)) {
    return { overlay: await paint(map, heatTable()), ids: null, say: (k) => percent(map.values[k] / 255, 0) };
  }
  return { overlay: await paint(map, classTable()), ids: map.values, say: (k) => className(map.values[k]) };
}

/** Where the best class is another than before the changes: in the colour of what it is now. */
async function changedOf(signal) {
  const addresses = await Promise.all([BEFORE, NOW].map((of) => address(of, state.view)));
  const [{ values: before }, { values: now, width }] = await Promise.all(addresses.map((path) => gray(path, signal)));
  const table = classTable();
  const say = (k) => (now[k] === before[k] ? "as before" : `${className(before[k])} → ${className(now[k])}`);
  const overlay = await picture(now.length, width, (k) => (now[k] === before[k] ? UNCHANGED : table[now[k]]));
  return { overlay, ids: now, say };
}

/** The two classes that fight most, as text; "" where none do. */
export async function fights(pane, signal) {
  const pairs = await get(await address(pane.of, "pairs"), signal);
  return pairs.slice(0, 3)
    .map(({ classes: [a, b], share }) => `${className(a)} and ${className(b)} ${percent(share)}`).join(", ");
}

/** mIoU of a layer that shows masks, in percent; null where truth says nothing. */
export async function miou(pane, layer, signal) {
  return (await get(await address(pane.of, layer, "miou"), signal)).miou;
}

/** asked: what is asked of a layer that shows masks. */
async function address(of, layer, asked = "mask") {
  const { image, run, view, classId, tagTurn } = state, own = run.stores[0].key;
  const base = `api/images/${image.row}`;
  if (layer === "truth") return `${base}/mask?layer=truth`;
  const [what, parameters] = {
    score: ["score", { class: classId, layer: view }],
    word: ["score", { class: "word", layer: view }],
    contest: ["contest", { layer: view }],
    pairs: ["pairs", { layer: view }],
  }[layer] ?? [asked, { layer }];
  const isOwn = of === NOW || of === BEFORE || layer === "word";
  const { version } = layer === "word" ? await withWord() : of === NOW ? await withWords() : { version: "saved" };
  const all = { ...parameters, store: isOwn ? own : of, words: version,
    tags: of === BEFORE ? "saved" : "now", turn: tagTurn };
  return `${base}/${what}?${new URLSearchParams(all)}`;
}

// ---- Colours -------------------------------------------------------------------------------------------------------

/** Bytes stand in memory in this order on every machine that a browser runs on. */
function pack([red, green, blue], alpha = 255) { return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0; }

/** 0 (transparent) where a pixel is no class, or not the one that is shown alone. */
function classTable() {
  const { run, classId, isAlone } = state, table = new Uint32Array(256);
  run.classes.forEach((_, id) => { if (id !== NONE && (!isAlone || id === classId)) table[id] = pack(colourOf(id)); });
  return table;
}

function heatTable() {
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const at = (value / 255) * (HEAT.length - 1), from = Math.min(Math.floor(at), HEAT.length - 2);
    return pack(HEAT[from].map((part, k) => Math.round(part + (at - from) * (HEAT[from + 1][k] - part))));
  });
}

function paint({ values, width }, table) { return picture(values.length, width, (k) => table[values[k]]); }

/** packedAt: the packed colour at each place in scan order. */
function picture(length, width, packedAt) {
  const packed = new Uint32Array(length);
  for (let k = 0; k < length; k += 1) packed[k] = packedAt(k);
  return createImageBitmap(new ImageData(new Uint8ClampedArray(packed.buffer), width));
}
