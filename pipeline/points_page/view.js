// The image, zoomed and moved; the points and the cross-hair on it; the magnifier; pointers.

const MAGNIFIED = 17; // pixels of the image that the magnifier is wide; odd: the cross-hair has the middle

const zoom = new Zoom();

function pictureOf({ jpeg }) {
  const picture = new Image();
  picture.onload = drawAll;
  picture.src = `data:image/jpeg;base64,${jpeg}`;
  return picture;
}

function canvasSize() { return [byId("view").clientWidth, byId("view").clientHeight]; }

/** The whole image, whatever was seen before. */
function fitView() {
  zoom.isFit = true;
  resizeView();
}

function resizeView() {
  const { width, height } = images[state.image];
  zoom.resize(canvasSize(), [width, height]);
}

function zoomAtCrossHair(factor) {
  zoom.by(factor, zoom.scale * (state.x + 0.5 - zoom.left), zoom.scale * (state.y + 0.5 - zoom.top));
  drawAll();
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
  const [width, height] = canvasSize(), seenX = width / zoom.scale, seenY = height / zoom.scale;
  const shift = (at, start, seen) => Math.min(at - 0.1 * seen, Math.max(at - 0.9 * seen, start));
  zoom.left = shift(state.x, zoom.left, seenX);
  zoom.top = shift(state.y, zoom.top, seenY);
  zoom.keepInside();
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
  byId("view").style.touchAction = zoom.isFit ? "pan-y" : "none"; // a finger scrolls the page, or moves the image
  const context = contextOf(byId("view")), { scale, left, top } = zoom;
  context.imageSmoothingEnabled = scale * width < 6 * picture.naturalWidth;
  context.drawImage(picture, -scale * left, -scale * top, scale * width, scale * height);
  const at = (x, y) => [scale * (x + 0.5 - left), scale * (y + 0.5 - top)];
  drawCrossHair(context, ...at(state.x, state.y));
  for (const point of state.points.filter((other) => other.image === state.image)) {
    drawPoint(context, point, ...at(point.x, point.y));
  }
}

function drawCrossHair(context, x, y) {
  const [width, height] = canvasSize(), gap = Math.max(9, zoom.scale);
  const lines = new Path2D(`M0 ${y}H${x - gap}M${x + gap} ${y}H${width}M${x} 0V${y - gap}M${x} ${y + gap}V${height}`);
  lines.rect(x - zoom.scale / 2, y - zoom.scale / 2, zoom.scale, zoom.scale);
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

function aimAt([x, y]) { aim(x / zoom.scale + zoom.left, y / zoom.scale + zoom.top); }

function onMove(event) {
  if (zoom.move(event)) drawAll();
  else if (!zoom.isHeld) aimAt([event.offsetX, event.offsetY]);
}

function onUp(event) {
  if (!zoom.up(event)) return;
  aimAt([event.offsetX, event.offsetY]);
  setHere();
}

function onWheel(event) {
  event.preventDefault();
  zoom.wheel(event);
  aimAt([event.offsetX, event.offsetY]);
}

function watchView() {
  const canvas = byId("view");
  canvas.addEventListener("pointerdown", (event) => zoom.down(event));
  canvas.addEventListener("pointermove", onMove);
  canvas.addEventListener("pointerup", onUp);
  canvas.addEventListener("pointercancel", onUp);
  canvas.addEventListener("wheel", onWheel, { passive: false });
  new ResizeObserver(() => {
    resizeView();
    drawAll();
  }).observe(canvas);
}
