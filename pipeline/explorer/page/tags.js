// The panel Tags: what an image is said to show, what is suspicious about that, and how to change it.

import { post } from "./api.js";
import { DOUBTS, showImage } from "./list.js";
import { change, className, classes, colourOf, onChange, openSuspects, state } from "./state.js";
import { attempt } from "./trouble.js";
import { redraw } from "./redraw.js";
import { forgetSaved } from "./saved.js";

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

async function onChanged(row, { tags, can_undo: canUndo, changes, are_saved: areTagsSaved }) {
  forgetSaved();
  const image = state.image.row === row ? { ...state.image, tags } : state.image;
  change({ image, canUndo, changedTags: changes, areTagsSaved, tagTurn: state.tagTurn + 1 });
  await showImage(row);
}

/** Change the tag that is suspected first. */
export function believeSuspicion() {
  const [first] = openSuspects(state.image);
  if (first) setTag(first.class, first.kind === "missing");
}

function refresh() {
  const { image } = state;
  byId("undo-tag").disabled = !state.canUndo;
  if (!image) return;
  const open = openSuspects(image).slice(0, SUSPECTS);
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
  onChange(refresh);
}
