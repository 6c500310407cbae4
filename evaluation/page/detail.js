// One image, large: all its layers, its scores, the classes of the pixel under the pointer; and the keyboard.

function makeDetail() {
  makeControls(byId("detail-controls"));
  byId("film").append(...layerButtons((label) => [el("canvas", { role: "img", width: 0, height: 0 }), label]));
  byId("close").onclick = () => byId("detail").close();
  byId("previous").onclick = () => step(-1);
  byId("next").onclick = () => step(1);
  byId("detail").onclose = onClose;
  byId("large").onpointermove = readPixel;
}

function openDetail(entry) {
  select(entry);
  document.activeElement.blur(); // else the browser would return to this card, whichever image is shown at the end
  byId("detail").showModal();
  drawDetail();
}

function drawDetail() {
  const entry = state.selected, { facts } = entry;
  byId("detail-name").textContent = facts.id;
  byId("detail-place").textContent = `${count(listed.indexOf(entry) + 1)} of ${count(listed.length)}`;
  paint(byId("large"), entry, state.layer, state.opacity);
  byId("film").querySelectorAll("canvas").forEach((canvas, k) => paint(canvas, entry, layers[k].key, 1));
  byId("detail-scores").replaceChildren(imageScores(facts));
}

/** IoU of each class that this image has, pseudo-labels beside prediction. */
function imageScores({ iou }) {
  const columns = [reference?.name, state.prediction].filter((name) => name != null);
  const titled = (name, id) => el("span", {}, swatch(rgb(palette[id])), ` ${name}`);
  const lines = names.map((name, id) => [titled(name, id), ...columns.map((column) => iou[column][id])]);
  const known = lines.filter(([, ...values]) => values.some((value) => value !== null));
  const total = ["mean", ...columns.map((column) => mean(iou[column]))];
  return table("IoU in this image, in percent", ["", ...columns], [total, ...known], "line");
}

function onClose() {
  for (const canvas of byId("detail").querySelectorAll("canvas")) free(canvas);
  forget(state.selected);
  if (state.selected.card?.isConnected) state.selected.card.focus();
}

/** Name the classes of the pixel under the pointer. */
async function readPixel({ offsetX, offsetY, target: { clientWidth, clientHeight, width, height } }) {
  const picture = state.selected.picture;
  const scale = Math.min(clientWidth / width, clientHeight / height); // as large as fits, in the middle of its box
  const x = Math.floor((offsetX - (clientWidth - scale * width) / 2) / scale);
  const y = Math.floor((offsetY - (clientHeight - scale * height) / 2) / scale);
  if (!picture || x < 0 || y < 0 || x >= width || y >= height) return;
  const maps = layers.filter(({ key }) => mapOf(key) !== null);
  const ids = await Promise.all(maps.map(({ key }) => picture.ids(mapOf(key))));
  const said = maps.map(({ label }, k) => `${label}: ${names[ids[k][y * width + x]] ?? "none"}`);
  byId("readout").textContent = said.join(" · ");
}

// ---- Keyboard -----------------------------------------------------------------------------------------------------

function onKey(event) {
  const { target, key } = event, isCard = target.classList.contains("card"), isOpen = byId("detail").open;
  if (event.ctrlKey || event.altKey || event.metaKey || target.matches("input, select, .scroll")) return;
  if (!isOpen && !isCard && target !== document.body) return;
  const layer = /^[1-9]$/.test(key) ? layers[Number(key) - 1] : undefined;
  if (key === "ArrowRight") step(1);
  else if (key === "ArrowLeft") step(-1);
  else if (key === "ArrowDown" && (isOpen || isCard)) stepLayer(1); // elsewhere it scrolls the page
  else if (key === "ArrowUp" && (isOpen || isCard)) stepLayer(-1);
  else if (layer) change({ layer: layer.key });
  else return;
  event.preventDefault();
}

/** Select the image that stands `by` places on; the first and the last are ends. */
function step(by) {
  if (!listed.length) return;
  const place = Math.min(listed.length - 1, Math.max(0, listed.indexOf(state.selected) + by));
  select(listed[place]);
  change({ limit: Math.max(state.limit, place + 1) });
  if (!byId("detail").open) state.selected.card.focus();
}

/** The layer that stands `by` places on; after the last comes the first. */
function stepLayer(by) {
  const place = layers.findIndex(({ key }) => key === state.layer);
  change({ layer: layers.at((place + by) % layers.length).key });
}

// ---- Start: each section that has something to say ----------------------------------------------------------------

function showSection(id, isThere, draw) {
  byId(id).hidden = !isThere;
  if (!isThere) return;
  draw();
  byId("links").append(el("a", { href: `#${id}` }, byId(id).dataset.title));
}

drawHeader();
showSection("scores", rows.length, drawSummary);
showSection("images", metrics.images, makeGallery);
showSection("classes", rows.length, drawClassesSection);
showSection("confusion", rows.some((row) => row.confusion), drawConfusionSection);
showSection("curves", Object.values(curves).some((steps) => steps.length), drawCurves);
showSection("balance", Object.keys(verdicts).length, drawBalance);
showSection("statistics", statistics, drawStatistics);
showSection("tags", tags, drawTags);
showSection("engines", engines, drawEngines);
showSection("rounds", rounds, drawRounds);
showSection("about", true, () => {});
