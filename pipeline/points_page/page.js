// Classes, images, buttons and keys around the view; the start.

const KEYS = "1234567890abcdefghijklmnopqrstuvwxyz"; // of the first classes
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Everything that depends on the state. */
function refresh() {
  const missing = names.filter((_, trainId) => !pointsOf(trainId).length), done = names.length - missing.length;
  byId("progress").textContent = `${title}: ${done} of ${names.length} classes have a pixel`;
  byId("missing").textContent = missing.length ? `none yet for ${inWords(missing)}` : "every class has its pixel";
  names.forEach(describeClass);
  images.forEach(describeImage);
  byId("place").textContent = `${state.image + 1} of ${images.length}`;
  byId("image-name").textContent = byId("image-name").title = images[state.image].name;
  byId("view").setAttribute("aria-label", `image ${images[state.image].name}`);
  byId("undo").disabled = !state.before.length;
  byId("remove").disabled = !pointsOf(state.trainId).length;
  byId("csv").value = asCsv();
  drawAll();
}

function inWords(list) {
  return list.length > 6 ? `${list.slice(0, 5).join(", ")} and ${list.length - 5} more` : list.join(", ");
}

function describeClass(name, trainId) {
  const button = byId("classes").children[trainId], points = pointsOf(trainId);
  const places = points.map(({ image, x, y }) => `${x}, ${y} in image ${image + 1}`);
  button.setAttribute("aria-pressed", String(trainId === state.trainId));
  button.classList.toggle("done", points.length > 0);
  button.lastChild.textContent = places.join(" · ") || "no pixel yet";
  button.title = [name, ...places].join("\n");
}

function describeImage(_, place) {
  const button = byId("film").children[place], count = state.points.filter(({ image }) => image === place).length;
  button.setAttribute("aria-current", String(place === state.image));
  button.lastChild.textContent = count ? `${place + 1} · ${count} set` : String(place + 1);
}

/** Scroll a strip until its button is seen; the page, and the image under the pointer, stay where they are. */
function reveal(button) {
  const strip = button.parentElement, left = button.offsetLeft - strip.offsetLeft;
  strip.scrollLeft = Math.min(left, Math.max(left + button.offsetWidth - strip.clientWidth, strip.scrollLeft));
}

// ---- What people do ------------------------------------------------------------------------------------------------

function setHere() {
  setPoint(byId("several").checked);
  refresh();
}

/** Choose a class; if it is chosen already, go to its pixel. */
function choose(trainId) {
  const point = pointsOf(trainId).at(-1);
  if (trainId === state.trainId && point) {
    showImage(point.image);
    aim(point.x, point.y);
    follow();
  }
  state.trainId = trainId;
  reveal(byId("classes").children[trainId]);
  refresh();
}

function showImage(place) {
  if (place === state.image || !images[place]) return;
  state.image = place;
  const { width, height } = images[place];
  byId("view").style.aspectRatio = `${width} / ${height}`;
  Object.assign(state, { x: Math.floor(width / 2), y: Math.floor(height / 2) });
  fitView();
  reveal(byId("film").children[place]);
  refresh();
}

function nudge([x, y], by = 1) {
  aim(state.x + by * x, state.y + by * y);
  follow();
  drawAll();
}

function step(name, by) {
  if (name === "class") choose((state.trainId + by + names.length) % names.length);
  else showImage(state.image + by);
}

function onKey(event) {
  const { key, target } = event;
  if (event.altKey || target.matches("textarea, input, summary")) return;
  if (event.ctrlKey || event.metaKey) {
    if (key.toLowerCase() !== "z" || event.shiftKey) return;
    undo();
    refresh();
  } else if (ARROWS[key]) nudge(ARROWS[key], event.shiftKey ? 10 : 1);
  else if (key === "Enter" || key === " ") {
    if (target.matches("button")) return; // presses it
    setHere();
  } else if (key === "Delete" || key === "Backspace") {
    removePoint();
    refresh();
  } else if (key === "," || key === ".") step("class", key === "," ? -1 : 1);
  else if (key === "<" || key === "PageUp") step("image", -1);
  else if (key === ">" || key === "PageDown") step("image", 1);
  else if (key === "+" || key === "-") zoomAtCrossHair(key === "+" ? 1.5 : 1 / 1.5);
  else if (key === "=") { fitView(); drawAll(); }
  else if (key.length === 1 && names[KEYS.indexOf(key.toLowerCase())]) choose(KEYS.indexOf(key.toLowerCase()));
  else return;
  event.preventDefault();
}

// ---- Start ---------------------------------------------------------------------------------------------------------

function makeClasses() {
  byId("classes").append(...names.map((name, trainId) =>
    button({ onclick: () => choose(trainId) },
      el("kbd", {}, KEYS[trainId] ?? ""), swatch(rgb(palette[trainId])),
      el("span", { class: "clip" }, name), el("small", { class: "clip" }))));
}

function makeFilm() {
  byId("film").append(...images.map(({ jpeg, name }, place) =>
    button({ title: name, onclick: () => showImage(place) },
      el("img", { src: `data:image/jpeg;base64,${jpeg}`, alt: "", loading: "lazy" }), el("span"))));
}

function onClick(id, act) {
  byId(id).onclick = () => { act(); refresh(); };
}

function start() {
  makeClasses();
  makeFilm();
  onClick("previous", () => step("image", -1));
  onClick("next", () => step("image", 1));
  onClick("zoom-out", () => zoomAtCrossHair(1 / 1.5));
  onClick("zoom-in", () => zoomAtCrossHair(1.5));
  onClick("zoom-fit", fitView);
  onClick("set", setHere);
  onClick("undo", undo);
  onClick("remove", removePoint);
  onClick("save", save);
  for (const arrow of document.querySelectorAll("[data-by]")) {
    arrow.onclick = () => nudge(arrow.dataset.by.split(",").map(Number));
  }
  byId("several").checked = names.some((_, trainId) => pointsOf(trainId).length > 1);
  byId("csv").onfocus = ({ target }) => target.select();
  document.addEventListener("keydown", onKey);
  // After a click (not after a key) the keys are the view's again.
  document.addEventListener("click", ({ detail, target }) => {
    if (detail && target.closest("button")) byId("view").focus({ preventScroll: true });
  });
  window.addEventListener("beforeunload", (event) => { if (!state.isSaved) event.preventDefault(); });
  state.image = -1;
  showImage(0);
  watchView();
}

start();
