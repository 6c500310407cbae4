// What is shown, and how. Only change() writes it; whoever draws some of it listens.

export const NOW = "now", BEFORE = "before"; // where masks come from: with the changes, without; else a store's key
export const MAX_PANES = 4;

export const state = {
  run: null, // what GET api/run says
  place: -1, // of the shown image in the list
  image: null, // what GET api/images/ROW says
  panes: [{ layer: "photo", of: NOW }],
  active: 0, // the pane that the buttons for layers change
  view: "fused", // whose scores the layers score, contest, word and changed show
  opacity: 0.7,
  classId: 0, // the chosen class
  isAlone: false, // whether masks show only that one
  words: null, // {classes: {NAME: [word]}, templates}, as edited; run.words are the store's
  savedWords: null, // those that a file says, or the store's
  word: null, // the free word that was asked last
  tagTurn: 0, // grows with every change of a tag, so that no older mask is taken for a new one
  canUndo: false,
  changedTags: 0, // images whose tags are not the store's
  areTagsSaved: true, // whether a file says the same
  panel: "tags",
};

const listeners = [];

export function onChange(listener) { listeners.push(listener); }

export function change(changes) {
  Object.assign(state, changes);
  for (const listener of listeners) listener();
}

export function classes() { return state.run.classes; }

export function className(id) { return classes()[id]?.name ?? "nothing"; }

export function colourOf(id) { return classes()[id]?.colour ?? [128, 128, 128]; }

export function sameLists(one, other) { return JSON.stringify(one) === JSON.stringify(other); }

export function percent(share, digits = 1) { return `${(100 * share).toFixed(digits)} %`; }

export function changedClasses() {
  return classes().map(({ name }) => name)
    .filter((name) => !sameLists(state.words.classes[name], state.run.words.classes[name]));
}

export function areWordsChanged() {
  return changedClasses().length > 0 || !sameLists(state.words.templates, state.run.words.templates);
}

export function areWordsSaved() { return sameLists(state.words, state.savedWords); }

/** What is suspicious in an image, the worst first, but for what was changed since. */
export function openSuspects({ suspects, tags }) {
  return suspects.filter(({ class: id, kind }) => tags.includes(id) === (kind === "false"));
}

export function areTagsChanged({ image } = state) { return image !== null && !sameLists(image.tags, image.tags_saved); }

/** {key, label} of what a pane can show of the image; what comes and goes stands last, so that digits stay. */
export function layers() {
  const { run, image, word } = state, all = [{ key: "photo", label: "photo" }];
  if (run.has_truth) all.push({ key: "truth", label: "truth" });
  if (!image?.is_made) return all;
  all.push(...run.layers.map((key) => ({ key, label: key })));
  all.push({ key: "score", label: `score of ${className(state.classId)}`, short: "score" });
  all.push({ key: "contest", label: "where two classes fight", short: "contest" });
  if (areWordsChanged() || areTagsChanged()) all.push({ key: "changed", label: "what changed", short: "changed" });
  if (word) all.push({ key: "word", label: `“${word}”`, short: `“${word}”` });
  return all;
}

/** Where a pane's masks can come from: {key, label}. Run folders are called by their last part, if that tells them. */
export function sources() {
  const { run } = state, isChanged = areWordsChanged() || areTagsChanged();
  const last = run.stores.map(({ label }) => label.split("/").filter(Boolean).at(-1));
  const labels = new Set(last).size === last.length ? last : run.stores.map(({ label }) => label);
  const others = run.stores.slice(1).map(({ key }, k) => ({ key, label: labels[k + 1] }));
  const own = others.length ? `${labels[0]}, ` : "";
  return [{ key: NOW, label: `${own}now` }, ...(isChanged ? [{ key: BEFORE, label: `${own}before` }] : []), ...others];
}

/** The layer that a pane shows of this image: the photo where it has not what the pane is set to. */
export function shownLayer(pane) { return layers().find(({ key }) => key === pane.layer) ?? layers()[0]; }
