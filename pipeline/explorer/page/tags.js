// The panel Tags: what an image is said to show, what is suspicious about that, and how to change it.

import { post } from "./api.js";
import { DOUBTS, showImage } from "./list.js";
import { change, className, classes, colourOf, onChange, state } from "./state.js";
import { attempt } from "./trouble.js";
import { redraw } from "./redraw.js";
import { save } from "./saved.js";

const SUSPECTS = 5; // that are shown, the worst first

export function setTag(id, present) {
  return attempt(async () => {
    const { row } = state.image, answer = await post("api/tags", { row, class: id, present });
    await onChanged(row, answer);
  });
}

export function undoTag() {
  if (!state.canUndo) return undefined;
  return attempt(async () => {
    const answer = await post("api/tags/undo", {});
    await onChanged(answer.row, answer);
  });
}

async function onChanged(row, { tags, can_undo: canUndo, changes }) {
  byId("saved-tags").replaceChildren();
  const image = state.image.row === row ? { ...state.image, tags } : state.image;
  change({ image, canUndo, changedTags: changes, areTagsSaved: false, tagTurn: state.tagTurn + 1 });
  await showImage(row);
}

/** Change the tag that is suspected first. */
export function believeSuspicion() {
  const [first] = openSuspects();
  if (first) setTag(first.class, first.kind === "missing");
}

/** Those that were not acted on. */
function openSuspects() {
  const { suspects, tags } = state.image;
  return suspects.filter(({ class: id, kind }) => tags.includes(id) === (kind === "false"));
}

function refresh() {
  const { image } = state;
  byId("undo-tag").disabled = !state.canUndo;
  const { changedTags, areTagsSaved } = state, images = changedTags === 1 ? "1 image" : `${changedTags} images`;
  const changes = `${images} changed, ${areTagsSaved ? "saved" : "not saved"}`;
  byId("save-tags").disabled = areTagsSaved;
  byId("tag-changes").textContent = changedTags ? changes : "no changes";
  if (!image) return;
  const open = openSuspects().slice(0, SUSPECTS);
  drawSuspects(open, image.is_made);
  const buttons = byId("tags").children;
  classes().forEach((_, id) => {
    const isThere = image.tags.includes(id), wasThere = image.tags_saved.includes(id);
    buttons[id].disabled = !image.is_made;
    buttons[id].setAttribute("aria-pressed", String(isThere));
    buttons[id].lastChild.textContent = isThere === wasThere ? "" : isThere ? "added" : "removed";
  });
}

function drawSuspects(open, isMade) {
  const place = byId("suspects"), hadFocus = place.contains(document.activeElement);
  const none = () => [el("p", { class: "muted" }, isMade ? "Nothing." : "Not known before its masks are made.")];
  const isNew = redraw(place, [open, isMade], () => (open.length ? open.map(makeSuspect) : none()));
  if (isNew && hadFocus) (place.querySelector("button") ?? byId("undo-tag")).focus();
}

function makeSuspect({ class: id, kind, score }) {
  const isMissing = kind === "missing";
  return el("div", { class: "suspect" }, swatch(rgb(colourOf(id))),
    el("span", {}, el("strong", {}, className(id)), ` ${DOUBTS[kind]} `,
      el("small", { class: "muted", title: "how suspicious, to compare images by" }, score.toFixed(3))),
    button({ onclick: () => setTag(id, isMissing) }, isMissing ? "Add" : "Remove"));
}

export function startTags() {
  byId("tags").append(...classes().map(({ name, colour }, id) =>
    button({ class: "class", title: name, onclick: () => setTag(id, !state.image.tags.includes(id)) },
      swatch(rgb(colour)), el("span", { class: "clip" }, name), el("small"))));
  byId("undo-tag").onclick = undoTag;
  byId("save-tags").onclick = () => save("api/tags/save", {}, byId("saved-tags"), () => change({ areTagsSaved: true }));
  onChange(refresh);
}
