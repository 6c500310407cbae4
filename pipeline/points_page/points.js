// What write_page() filled in, the points that are set, and the file that they become. Pixels are those of the image's
// file: x to the right and y down, from 0.

const { title, names, palette, images, points: loaded } = JSON.parse(byId("data").textContent);

const state = {
  points: loaded, // {image, x, y, trainId}; never changed in place, for undo
  before: [], // what they were before each change
  trainId: 0, // the chosen class
  image: 0,
  x: 0, y: 0, // the cross-hair
  isSaved: true,
};

function pointsOf(trainId) { return state.points.filter((point) => point.trainId === trainId); }

function changePoints(points) {
  state.before.push(state.points);
  state.points = points;
  state.isSaved = false;
}

/** The cross-hair becomes the pixel of the chosen class, instead of the last one that it has, or beside it. */
function setPoint(isBeside) {
  const { image, x, y, trainId } = state, last = pointsOf(trainId).at(-1);
  // A pixel has one class.
  const isKept = (point) => !(point.image === image && point.x === x && point.y === y) && (isBeside || point !== last);
  changePoints([...state.points.filter(isKept), { image, x, y, trainId }]);
}

function removePoint() {
  const last = pointsOf(state.trainId).at(-1);
  if (last) changePoints(state.points.filter((point) => point !== last));
}

function undo() {
  if (!state.before.length) return;
  state.points = state.before.pop();
  state.isSaved = false;
}

function asCsv() {
  // "./" keeps spreadsheets from taking a name for a formula; read_points() takes it away.
  const plain = (name) => (/^([=+\-@]|\.\/)/.test(name) ? `./${name}` : name);
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const ordered = [...state.points].sort((a, b) => a.trainId - b.trainId);
  const lines = ordered.map(({ image, x, y, trainId }) =>
    `${quoted(plain(images[image].name))},${x},${y},${quoted(names[trainId])}`);
  return ["image,x,y,class", ...lines, ""].join("\n");
}

function save() {
  const url = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
  el("a", { href: url, download: "points.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // some browsers read it later
  state.isSaved = true;
}
