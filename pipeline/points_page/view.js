// The image, zoomed and moved; the points and the cross-hair on it; the magnifier; pointers.

const MAGNIFIED = 17; // pixels of the image that the magnifier is wide; odd: the cross-hair has the middle
const MAX_SCALE = 24; // CSS pixels per pixel of the image
const CLICK_PX = 6; // a pointer that moves farther drags

// CSS pixel = scale * (pixel of the image - [left, top]).
const view = { scale: 1, left: 0, top: 0, isFit: true };
const pointers = new Map(); // id -> [x, y] in the canvas, of buttons and fingers that are down
let hasDragged = false;

function pictureOf({ jpeg }) {
  const picture = new Image();
  picture.onload = drawAll;
  picture.src = `data:image/jpeg;base64,${jpeg}`;
  return picture;
}

function canvasSize() { return [byId("view").clientWidth, byId("view").clientHeight]; }

function fitScale() {
  const [width, height] = canvasSize(), image = images[state.image];
  return Math.min(width / image.width, height / image.height);
}

function fitView() {
  Object.assign(view, { scale: fitScale(), isFit: true });
  keepInside();
}

/** No empty margin that could be filled; what is smaller than the canvas stands in its middle. */
function keepInside() {
  const [width, height] = canvasSize(), image = images[state.image];
  const clamp = (at, size, seen) => (seen >= size ? (size - seen) / 2 : Math.min(size - seen, Math.max(0, at)));
  view.left = clamp(view.left, image.width, width / view.scale);
  view.top = clamp(view.top, image.height, height / view.scale);
  byId("view").style.touchAction = view.isFit ? "pan-y" : "none"; // a finger scrolls the page, or moves the image
}

/** What lies at the CSS pixel (x, y) stays there. */
function zoom(factor, x, y) {
  const least = fitScale(), scale = Math.min(Math.max(MAX_SCALE, least), Math.max(least, view.scale * factor));
  view.left += x / view.scale - x / scale;
  view.top += y / view.scale - y / scale;
  Object.assign(view, { scale, isFit: scale === least });
  keepInside();
  drawAll();
}

function onResize() {
  if (view.isFit) fitView();
  zoom(1, 0, 0);
}

function zoomAtCrossHair(factor) {
  zoom(factor, view.scale * (state.x + 0.5 - view.left), view.scale * (state.y + 0.5 - view.top));
}

/** The cross-hair goes to the pixel (x, y), or the nearest that there is. */
function aim(x, y) {
  const { width, height } = images[state.image];
  state.x = Math.min(width - 1, Math.max(0, Math.floor(x)));
  state.y = Math.min(height - 1, Math.max(0, Math.floor(y)));
  drawAll();
}

/** Move the image, if it is zoomed, until the cross-hair is well on the canvas. */
function follow() {
  const [width, height] = canvasSize(), seenX = width / view.scale, seenY = height / view.scale;
  const shift = (at, start, seen) => Math.min(at - 0.1 * seen, Math.max(at - 0.9 * seen, start));
  view.left = shift(state.x, view.left, seenX);
  view.top = shift(state.y, view.top, seenY);
  keepInside();
}

// ---- Drawing -------------------------------------------------------------------------------------------------------

/** The context of a canvas, cleared, in CSS pixels. */
function contextOf(canvas) {
  const ratio = window.devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(ratio * width);
  canvas.height = Math.round(ratio * height);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

function drawAll() {
  byId("readout").textContent = `${names[state.trainId]} · x ${state.x}, y ${state.y}`;
  const image = images[state.image], picture = (image.picture ??= pictureOf(image));
  if (!picture.complete) return; // it will be drawn when it is there
  drawView(image, picture);
  drawMagnifier(image, picture);
}

function drawView({ width, height }, picture) {
  const context = contextOf(byId("view")), { scale, left, top } = view;
  context.imageSmoothingEnabled = scale * width < 6 * picture.naturalWidth;
  context.drawImage(picture, -scale * left, -scale * top, scale * width, scale * height);
  const at = (x, y) => [scale * (x + 0.5 - left), scale * (y + 0.5 - top)];
  drawCrossHair(context, ...at(state.x, state.y));
  for (const point of state.points.filter((other) => other.image === state.image)) {
    drawPoint(context, point, ...at(point.x, point.y));
  }
}

function drawCrossHair(context, x, y) {
  const [width, height] = canvasSize(), gap = Math.max(9, view.scale);
  const lines = new Path2D(`M0 ${y}H${x - gap}M${x + gap} ${y}H${width}M${x} 0V${y - gap}M${x} ${y + gap}V${height}`);
  lines.rect(x - view.scale / 2, y - view.scale / 2, view.scale, view.scale);
  strokeTwice(context, lines, "#fff", 1);
}

function drawPoint(context, { trainId }, x, y) {
  const isChosen = trainId === state.trainId, ring = new Path2D();
  ring.arc(x, y, isChosen ? 8 : 6, 0, 2 * Math.PI);
  context.lineWidth = isChosen ? 7 : 5;
  for (const colour of ["#000", "#fff", rgb(palette[trainId])]) { // to be seen on every picture
    context.strokeStyle = colour;
    context.stroke(ring);
    context.lineWidth -= 2;
  }
  context.font = `${isChosen ? "600 " : ""}12px system-ui, sans-serif`;
  context.lineWidth = 3;
  context.strokeStyle = "#000c";
  context.fillStyle = "#fff";
  const text = names[trainId].length > 24 ? `${names[trainId].slice(0, 23)}…` : names[trainId];
  const isLeft = x + 14 + context.measureText(text).width > byId("view").clientWidth;
  const place = [text, x + (isLeft ? -13 : 13), y];
  context.textAlign = isLeft ? "right" : "left";
  context.textBaseline = "middle";
  context.strokeText(...place);
  context.fillText(...place);
}

/** On a dark rim: to be seen on every picture. */
function strokeTwice(context, path, colour, width) {
  context.lineWidth = width + 2;
  context.strokeStyle = "#0008";
  context.stroke(path);
  context.lineWidth = width;
  context.strokeStyle = colour;
  context.stroke(path);
}

function drawMagnifier({ width, height }, picture) {
  const canvas = byId("magnifier"), context = contextOf(canvas), cell = canvas.clientWidth / MAGNIFIED;
  const left = state.x - (MAGNIFIED - 1) / 2, top = state.y - (MAGNIFIED - 1) / 2;
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, -cell * left, -cell * top, cell * width, cell * height);
  for (const { image, x, y, trainId } of state.points) {
    if (image !== state.image) continue;
    const square = new Path2D();
    square.rect(cell * (x - left), cell * (y - top), cell, cell);
    strokeTwice(context, square, rgb(palette[trainId]), 2);
  }
  const middle = new Path2D();
  middle.rect(cell * (MAGNIFIED - 1) / 2, cell * (MAGNIFIED - 1) / 2, cell, cell);
  strokeTwice(context, middle, "#fff", 1);
}

// ---- Pointers ------------------------------------------------------------------------------------------------------

function aimAt([x, y]) { aim(x / view.scale + view.left, y / view.scale + view.top); }

function onDown(event) {
  if (event.button !== 0) return;
  if (!pointers.size) hasDragged = false;
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  byId("view").setPointerCapture(event.pointerId);
}

function onMove({ pointerId, offsetX, offsetY }) {
  const now = [offsetX, offsetY], was = pointers.get(pointerId);
  if (!was) return pointers.size || aimAt(now);
  if (pointers.size === 1) {
    if (!hasDragged && Math.hypot(now[0] - was[0], now[1] - was[1]) < CLICK_PX) return;
    drag(was, now);
  } else {
    const other = [...pointers].find(([id]) => id !== pointerId)[1];
    const span = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    const half = ([x, y]) => [(x + other[0]) / 2, (y + other[1]) / 2];
    drag(half(was), half(now));
    zoom(span(now) / Math.max(1, span(was)), ...half(now));
  }
  pointers.set(pointerId, now);
}

function drag(was, now) {
  hasDragged = true;
  view.left -= (now[0] - was[0]) / view.scale;
  view.top -= (now[1] - was[1]) / view.scale;
  keepInside();
  drawAll();
}

function onUp({ pointerId, offsetX, offsetY, type }) {
  const isClick = pointers.delete(pointerId) && !pointers.size && !hasDragged && type === "pointerup";
  if (!isClick) return;
  aimAt([offsetX, offsetY]);
  setHere();
}

function onWheel(event) {
  event.preventDefault();
  zoom(1.0015 ** -(event.deltaMode ? 30 * event.deltaY : event.deltaY), event.offsetX, event.offsetY);
  aimAt([event.offsetX, event.offsetY]);
}

function watchView() {
  const canvas = byId("view");
  canvas.addEventListener("pointerdown", onDown);
  canvas.addEventListener("pointermove", onMove);
  canvas.addEventListener("pointerup", onUp);
  canvas.addEventListener("pointercancel", onUp);
  canvas.addEventListener("wheel", onWheel, { passive: false });
  new ResizeObserver(onResize).observe(canvas);
}
