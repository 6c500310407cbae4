// The images: which are listed, in what order, their cards, and the controls over them.

let entries = []; // {facts, block} of each image; a card and its canvas, and a picture, are added when needed
let listed = []; // those that pass the filters, sorted
const near = new Set(); // those whose cards are near the screen
const watch = new IntersectionObserver(onNear, { rootMargin: "600px" });
const collator = new Intl.Collator("en", { numeric: true });

const SORTS = { // smallest value first; no value last
  prediction: {
    label: "worst prediction",
    isThere: predictionRows.length,
    value: (entry) => scoreOf(entry, state.prediction),
  },
  pseudo: {
    label: "worst pseudo-labels",
    isThere: pseudoRows.length,
    value: (entry) => scoreOf(entry, reference.name),
  },
  agreement: {
    label: "least agreement",
    isThere: hasAgreement,
    value: (entry) => entry.facts.agreed[state.prediction],
  },
  gain: {
    label: "largest gain over pseudo-labels",
    isThere: predictionRows.length && pseudoRows.length,
    value: (entry) => difference(scoreOf(entry, reference.name), scoreOf(entry, state.prediction)),
  },
  name: { label: "name", isThere: true, value: () => 0 },
};

/** IoU in percent of a row in one image: mean of its classes, or that of the isolated class. */
function scoreOf({ facts }, rowName) {
  const iou = facts.iou[rowName] ?? [];
  return state.isolated === null ? mean(iou) : iou[state.isolated];
}

function listImages() {
  const wanted = state.name.toLowerCase();
  const isWanted = ({ facts }) =>
    facts.id.toLowerCase().includes(wanted) && (state.shows === null || facts.shows.includes(state.shows));
  const keyed = entries.filter(isWanted).map((entry) => [SORTS[state.sort].value(entry) ?? Infinity, entry]);
  keyed.sort(([a, one], [b, other]) => (a === b ? collator.compare(one.facts.id, other.facts.id) : a - b));
  return keyed.map(([, entry]) => entry);
}

function change(changes) {
  Object.assign(state, changes);
  refresh();
}

/** Draw everything that depends on the state. */
function refresh() {
  listed = listImages();
  const shown = listed.slice(0, state.limit);
  showCards(shown.map((entry) => (entry.card ??= makeCard(entry))));
  shown.forEach(describe);
  for (const entry of near) paint(entry.canvas, entry, state.layer, state.opacity);
  byId("count").textContent = `${count(listed.length)} of ${count(entries.length)} images`;
  byId("more").hidden = listed.length === shown.length;
  byId("more").textContent = `Show all ${count(listed.length)} images`;
  refreshControls();
  if (byId("detail").open) drawDetail();
}

function showCards(cards) {
  const there = byId("cards").children, focused = document.activeElement;
  if (there.length === cards.length && cards.every((card, k) => card === there[k])) return;
  byId("cards").replaceChildren(...cards);
  if (cards.includes(focused)) focused.focus(); // a card that is moved loses it
}

function makeCard(entry) {
  const { id, size: [width, height] } = entry.facts;
  entry.canvas = el("canvas", { role: "img", width: 0, height: 0, style: `aspect-ratio:${width}/${height}` });
  const card = button({ class: "card", onclick: () => openDetail(entry), onfocus: () => select(entry) },
    entry.canvas, el("span", { class: "clip", title: id }, id), el("span"));
  card.entry = entry;
  watch.observe(card);
  return card;
}

/** What a card says below its picture. */
function describe(entry) {
  const parts = state.isolated === null ? [] : [names[state.isolated]];
  if (state.prediction !== null) parts.push(`prediction ${number(scoreOf(entry, state.prediction))}`);
  if (reference) parts.push(`pseudo-labels ${number(scoreOf(entry, reference.name))}`);
  if (hasAgreement) parts.push(`agreed ${number(entry.facts.agreed[state.prediction], 0)} %`);
  entry.card.lastChild.textContent = parts.join(" · ");
  entry.card.setAttribute("aria-current", String(entry === state.selected));
}

function select(entry) {
  const before = state.selected;
  state.selected = entry;
  for (const changed of [before, entry]) if (changed?.card) describe(changed);
  if (before && before !== entry) forget(before);
}

/** Cards have pixels only while they are near the screen: a thousand at once would take gigabytes. */
function onNear(changes) {
  for (const { target: { entry }, isIntersecting } of changes) {
    if (isIntersecting) {
      near.add(entry);
      paint(entry.canvas, entry, state.layer, state.opacity);
    } else if (near.delete(entry)) {
      free(entry.canvas);
      forget(entry);
    }
  }
}

/** Drop what was decoded of an image, unless it is on the screen. */
function forget(entry) {
  const isOpen = byId("detail").open && entry === state.selected;
  if (!near.has(entry) && !isOpen) entry.picture = null;
}

// ---- Controls: over the gallery, and again in the detail view -----------------------------------------------------

function layerButtons(content) {
  return layers.map(({ key, label }, k) =>
    button({ "data-layer": key, title: `key ${k + 1}`, onclick: () => change({ layer: key }) }, ...content(label)));
}

function studentChooser() {
  const chooser = el("select", { class: "student", onchange: (event) => change({ prediction: event.target.value }) });
  setOptions(chooser, predictionRows.map(({ name }) => [name, name]), state.prediction);
  return el("label", { title: "whose prediction and agreement" }, "of", chooser);
}

function opacitySlider() {
  const oninput = (event) => change({ opacity: Number(event.target.value) });
  const slider = el("input", { type: "range", class: "opacity", min: 0, max: 1, step: 0.05, oninput });
  return el("label", {}, "opacity", slider);
}

function legend() {
  const toggle = (id) => change({ isolated: state.isolated === id ? null : id });
  const classes = names.map((name, id) =>
    button({ "data-class": id, title: `show ${name} alone`, onclick: () => toggle(id) },
      swatch(rgb(palette[id])), el("span", {}, name)));
  return el("div", { class: "buttons legend", role: "group", "aria-label": "class shown alone" }, ...classes);
}

function agreementKey() {
  return el("span", { class: "muted agreement-key" },
    swatch(rgb(AGREED)), " as the global pseudo-labels ", swatch(rgb(DISAGREED)), " otherwise");
}

function makeControls(place, first = null) {
  const chooser = predictionRows.length > 1 ? studentChooser() : null;
  place.append(el("div", { class: "controls" }, first, chooser, opacitySlider(), agreementKey()), legend());
}

function refreshControls() {
  const all = (selector) => document.querySelectorAll(selector);
  const press = (toggle, isOn) => toggle.setAttribute("aria-pressed", String(isOn));
  for (const toggle of all("[data-layer]")) press(toggle, toggle.dataset.layer === state.layer);
  for (const toggle of all("[data-class]")) press(toggle, Number(toggle.dataset.class) === state.isolated);
  for (const slider of all(".opacity")) slider.value = state.opacity;
  for (const chooser of all(".student")) chooser.value = state.prediction;
  for (const key of all(".agreement-key")) key.hidden = state.layer !== AGREEMENT;
}

function makeGallery() {
  const sorts = Object.entries(SORTS).filter(([, { isThere }]) => isThere).map(([key, { label }]) => [key, label]);
  setOptions(byId("sort"), sorts, state.sort);
  setOptions(byId("shows"), [["", "any class"], ...names.map((name, id) => [String(id), name])], "");
  byId("sort").onchange = ({ target: { value } }) => change({ sort: value });
  byId("shows").onchange = ({ target: { value } }) => change({ shows: value === "" ? null : Number(value) });
  byId("name").oninput = ({ target: { value } }) => change({ name: value });
  byId("more").onclick = () => change({ limit: entries.length });
  const toggles = layerButtons((label) => [label]);
  makeControls(byId("gallery-controls"), el("div", { class: "buttons", role: "group", "aria-label": "layer" }, ...toggles));
  makeDetail();
  byId("count").textContent = "reading the images …";
  document.addEventListener("DOMContentLoaded", readImages); // their blocks come after this script
}

function readImages() {
  const read = (script) => ({ facts: JSON.parse(script.textContent), block: script.nextElementSibling });
  entries = [...document.querySelectorAll("script.facts")].map(read);
  refresh();
  document.addEventListener("keydown", onKey);
}
