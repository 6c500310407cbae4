// The list of images: only the rows that are seen are there, and only their pages are asked for.

import { get } from "./api.js";
import { areWordsSaved, change, className, colourOf, onChange, openSuspects, state } from "./state.js";
import { attempt, tell } from "./trouble.js";

export const DOUBTS = { missing: "forgotten?", false: "really there?" };
const ROW_PX = 46; // as .item in page.css
const PAGE = 50, MAX_PAGES = 40; // images in a page; pages that are kept
const JUDGING_MS = 1000; // between two questions how far the judging of tags is
const SCROLL_MS = 80, TYPE_MS = 250; // what is passed in a shorter time is not asked for

let pages = new Map(); // number -> {promise, items}; items are null until they are there
let hasGone = false; // whether somebody chose an image
let total = 0, going = 0, showing = 0, timer = null;

function page(number) {
  if (!pages.has(number)) pages.set(number, ask(number));
  if (pages.size > MAX_PAGES) pages.delete(pages.keys().next().value);
  return pages.get(number);
}

function ask(number) {
  const wanted = { sort: byId("sort").value, query: byId("query").value, offset: number * PAGE, limit: PAGE };
  if (state.image) wanted.row = state.image.row;
  const asked = { items: null }, there = pages;
  asked.promise = get(`api/images?${new URLSearchParams(wanted)}`).then((answer) => {
    asked.items = answer.items;
    return answer;
  });
  asked.promise.catch(() => there.delete(number));
  return asked;
}

function itemAt(place) { return pages.get(Math.floor(place / PAGE))?.items?.[place % PAGE]; }

/** Where an image stands in the list; -1 if it is not in the pages that are there. */
function placeOf(row) {
  for (const [number, { items }] of pages) {
    const k = items?.findIndex((item) => item.row === row) ?? -1;
    if (k >= 0) return number * PAGE + k;
  }
  return -1;
}

/** Ask anew, in another order or for another name; the shown image stays. */
export async function reload() {
  const there = (pages = new Map()), first = await page(0).promise;
  if (there !== pages) return; // asked anew meanwhile
  total = first.total;
  byId("list-inner").style.height = `${total * ROW_PX}px`;
  const { images } = state.run;
  byId("count").textContent = total === images ? `${images} images` : `${total} of ${images} images`;
  change({ place: first.place ?? -1 });
  if (state.place < 0) byId("list").scrollTop = 0;
  else reveal();
  if (byId("sort").value === "suspicion") watchSuspicion(there, first.suspicion).catch(tell);
}

/** Until all tags are judged the list is in order; then it is asked for anew. */
async function watchSuspicion(there, { state: at, done, total: all, error }) {
  const isRunning = at === "running";
  byId("judging").textContent = isRunning ? `judging tags: ${done} of ${all} images` : at === "failed" ? error : "";
  if (!isRunning) return;
  await new Promise((resolve) => { setTimeout(resolve, JUDGING_MS); });
  if (there !== pages) return; // another order, or search
  const { suspicion } = await get("api/images?sort=suspicion&limit=1");
  if (suspicion.state === "done") {
    const isFirst = state.place === 0 && !hasGone;
    await reload();
    if (isFirst && areWordsSaved() && !state.canUndo) await goTo(0); // nobody has begun with what was first
  } else await watchSuspicion(there, suspicion);
}

// ---- Going from image to image -------------------------------------------------------------------------------------

/** Show the image at a place of the list, if there is one. */
export async function goTo(place) {
  if (place < 0 || place >= total) return;
  change({ place });
  reveal();
  going += 1;
  const turn = going, asked = page(Math.floor(place / PAGE));
  await asked.promise;
  if (turn === going) await showImage(asked.items[place % PAGE].row); // whatever became of the list meanwhile
}

export function step(by) {
  hasGone = true;
  return goTo(state.place + by);
}

/** Show an image, wherever it stands in the list; also to see it anew. */
export async function showImage(row) {
  showing += 1;
  const turn = showing, image = await get(`api/images/${row}`);
  if (turn !== showing) return; // another one was asked for meanwhile
  const place = row === state.image?.row ? state.place : placeOf(row);
  const item = itemAt(placeOf(row));
  const changed = String(image.tags) !== String(image.tags_saved);
  if (item) Object.assign(item, { tags: image.tags, changed, suspect: openSuspects(image)[0] ?? null });
  history.replaceState(null, "", `#${row}`);
  change({ image, place });
}

// ---- Drawing -------------------------------------------------------------------------------------------------------

function reveal() {
  const list = byId("list"), top = state.place * ROW_PX;
  list.scrollTop = Math.min(top, Math.max(top + ROW_PX - list.clientHeight, list.scrollTop));
}

function refresh() {
  const { scrollTop, clientHeight } = byId("list"), { place } = state;
  const first = Math.floor(scrollTop / ROW_PX), end = Math.min(total, Math.ceil((scrollTop + clientHeight) / ROW_PX));
  const places = Array.from({ length: Math.max(0, end - first) }, (_, k) => first + k);
  byId("list-inner").replaceChildren(...places.map(makeItem));
  const isSeen = place >= first && place < end;
  fill(byId("list"), { "aria-activedescendant": isSeen ? `item-${place}` : "" });
  byId("place").textContent = place < 0 ? `${total} images` : `${place + 1} of ${total}`;
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place >= total - 1;
  clearTimeout(timer);
  const missing = new Set(places.filter((at) => !itemAt(at)).map((at) => Math.floor(at / PAGE)));
  if (missing.size) timer = setTimeout(() => fetchPages([...missing]), SCROLL_MS);
}

async function fetchPages(numbers) {
  await Promise.all(numbers.map((number) => page(number).promise)).catch(tell);
  refresh();
}

function makeItem(place) {
  const item = itemAt(place), isShown = place === state.place;
  const element = el("div", { class: "item", role: "option", id: `item-${place}`, "aria-selected": String(isShown),
    "aria-posinset": place + 1, "aria-setsize": total, onclick: () => attempt(() => step(place - state.place)) });
  element.style.top = `${place * ROW_PX}px`;
  if (item) element.append(el("span", { class: "clip", title: item.id }, item.id), hint(item));
  return element;
}

/** What a row says below the name. */
function hint({ suspect, is_made: isMade, changed }) {
  const parts = [];
  if (changed) parts.push(el("b", {}, "changed"));
  if (!isMade) parts.push("not made yet");
  else if (suspect) {
    const { class: id, kind } = suspect;
    parts.push(swatch(rgb(colourOf(id))), `${className(id)} ${DOUBTS[kind]}`);
  }
  return el("small", { class: "clip" }, ...parts.flatMap((part) => [part, " "]));
}

// ---- Start ---------------------------------------------------------------------------------------------------------

function onKey(event) {
  const seen = Math.max(1, Math.floor(byId("list").clientHeight / ROW_PX) - 1);
  const by = { ArrowDown: 1, ArrowUp: -1, PageDown: seen, PageUp: -seen, Home: -total, End: total }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  event.stopPropagation(); // elsewhere these keys choose layers
  attempt(() => step(Math.min(total - 1, Math.max(0, state.place + by)) - state.place));
}

export function startList() {
  byId("list").addEventListener("scroll", refresh);
  byId("list").addEventListener("keydown", onKey);
  byId("sort").onchange = () => {
    byId("judging").textContent = "";
    attempt(reload);
  };
  byId("query").oninput = () => {
    clearTimeout(byId("query").timer);
    byId("query").timer = setTimeout(() => attempt(reload), TYPE_MS);
  };
  byId("query").onkeydown = ({ key }) => {
    if (key === "Enter") attempt(async () => { await reload(); await step(-state.place); });
    if (key !== "Escape" || !byId("query").value) return;
    byId("query").value = "";
    attempt(reload);
  };
  byId("previous").onclick = () => attempt(() => step(-1));
  byId("next").onclick = () => attempt(() => step(1));
  new ResizeObserver(refresh).observe(byId("list"));
  onChange(refresh);
}
