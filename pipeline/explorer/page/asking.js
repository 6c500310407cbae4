// What the server makes of edited words and of a free word, for the shown image; each is asked once.

import { post } from "./api.js";
import { areWordsChanged, state } from "./state.js";

const PASSING_MS = 120; // an image that is left before that is not asked about: CLIP may need to look at it
const asked = new Map(); // "words" or "word" -> {key, promise}: the last one of each

/** {version, and what moved} with the words as edited; version "saved" where they are the store's. */
export function withWords() {
  if (!areWordsChanged()) return Promise.resolve({ version: "saved" });
  return once("words", "api/words", { row: state.image.row, layer: state.view, ...state.words }, state.tagTurn);
}

/** {version, share} of the free word. */
export function withWord() {
  const { image, view: layer, word, words } = state;
  return once("word", "api/word", { row: image.row, layer, word, ...words }, state.tagTurn);
}

function once(what, path, data, turn) {
  const key = JSON.stringify([data, turn]);
  if (asked.get(what)?.key !== key) asked.set(what, { key, promise: ask(path, data) });
  const { promise } = asked.get(what);
  promise.catch(() => { if (asked.get(what)?.promise === promise) asked.delete(what); });
  return promise;
}

async function ask(path, data) {
  await new Promise((resolve) => { setTimeout(resolve, PASSING_MS); });
  if (state.image.row !== data.row) throw new DOMException("left meanwhile", "AbortError");
  return post(path, data);
}
