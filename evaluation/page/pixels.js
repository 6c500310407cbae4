// From an image's block of JSON to pixels on a canvas.

const AGREEMENT = "agreement", PREDICTION = "prediction";
const layers = [
  { key: "image", label: "image" },
  { key: "truth", label: "truth" },
  ...pseudoRows.map(({ name }) => ({ key: name, label: name.slice(PSEUDO.length) })),
  ...(hasAgreement ? [{ key: AGREEMENT, label: "agreement" }] : []),
  ...(predictionRows.length ? [{ key: PREDICTION, label: "prediction" }] : []),
];

/** What is shown, and how. Only change() writes it. */
const state = {
  layer: (predictionRows.length ? layers.at(-1) : layers[2] ?? layers[1]).key,
  prediction: predictionRows.at(-1)?.name ?? null, // the row that stands for "prediction"
  opacity: 0.7,
  isolated: null, // number of the class that is shown alone
  sort: predictionRows.length ? "prediction" : pseudoRows.length ? "pseudo" : "name",
  name: "", // part of the names that are listed
  shows: null, // number of the class that listed images show
  limit: PAGE,
  selected: null, // an entry of the gallery
};

/** The photo and the class maps of one image; each is decoded when first asked for. */
class Picture {
  constructor(block) {
    this.data = JSON.parse(block.textContent);
    this.decoded = new Map();
  }

  photo() { return this.once("", () => decode(`data:image/jpeg;base64,${this.data.photo}`)); }

  /** Train ids in scan order. */
  ids(name) { return this.once(name, () => decodeIds(`data:image/png;base64,${this.data.maps[name]}`)); }

  once(key, make) {
    if (!this.decoded.has(key)) this.decoded.set(key, make());
    return this.decoded.get(key);
  }
}

async function decode(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

async function decodeIds(url) {
  const image = await decode(url);
  const canvas = el("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return Uint8Array.from({ length: data.length / 4 }, (_, k) => data[4 * k]);
}

/** The map that a layer shows; null where it shows none, or compares two. */
function mapOf(layer) {
  if (layer === "image" || layer === AGREEMENT) return null;
  return layer === PREDICTION ? state.prediction : layer;
}

/** The colours of a layer, packed, in scan order: 0 (transparent) where it says nothing or hides a class; or null. */
async function coloursOf(picture, layer) {
  if (layer === "image") return null;
  if (layer === AGREEMENT) {
    return agreement(await picture.ids(GLOBAL), await picture.ids(state.prediction), state.isolated);
  }
  const table = new Uint32Array(256);
  palette.forEach((colour, id) => { table[id] = state.isolated === null || state.isolated === id ? pack(colour) : 0; });
  return Uint32Array.from(await picture.ids(layer === PREDICTION ? state.prediction : layer), (id) => table[id]);
}

/** Where a prediction equals the pseudo-labels (CARB, Eq. 4), and where not; of pixels that either calls `only`. */
function agreement(pseudo, predicted, only) {
  const [agreed, disagreed] = [pack(AGREED), pack(DISAGREED)];
  return Uint32Array.from(pseudo, (id, k) => {
    if (id === NONE || (only !== null && id !== only && predicted[k] !== only)) return 0;
    return id === predicted[k] ? agreed : disagreed;
  });
}

/** Opaque. Bytes stand in memory in this order on every machine that a browser runs on. */
function pack([red, green, blue]) { return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; }

const turns = new WeakMap(); // canvas -> how often it was painted or freed
const scratch = el("canvas");

/** Draw a layer over the photo; nothing comes of it if the canvas is painted again, or freed, meanwhile. */
async function paint(canvas, entry, layer, opacity) {
  const turn = nextTurn(canvas);
  entry.picture ??= new Picture(entry.block);
  const [photo, colours] = await Promise.all([entry.picture.photo(), coloursOf(entry.picture, layer)]);
  if (turns.get(canvas) !== turn) return;
  const { naturalWidth: width, naturalHeight: height } = photo;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(photo, 0, 0);
  if (colours) {
    Object.assign(scratch, { width, height });
    scratch.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(colours.buffer), width), 0, 0);
    context.globalAlpha = opacity;
    context.drawImage(scratch, 0, 0);
  }
  canvas.setAttribute("aria-label", `${layer} of ${entry.facts.id}`);
}

/** Give the memory of a canvas back. */
function free(canvas) {
  nextTurn(canvas);
  Object.assign(canvas, { width: 0, height: 0 });
  canvas.removeAttribute("aria-label");
}

function nextTurn(canvas) {
  turns.set(canvas, (turns.get(canvas) ?? 0) + 1);
  return turns.get(canvas);
}
