// Elements that are made anew only when what they show has changed: else a button would lose the focus.

const shown = new WeakMap(); // place -> what it shows, as text

/** make: its elements, for `what`. Whether they were made anew. */
export function redraw(place, what, make) {
  const text = JSON.stringify(what);
  if (shown.get(place) === text) return false;
  shown.set(place, text);
  place.replaceChildren(...make());
  return true;
}
