// Numbers as text, tables, heat maps, bars.

function number(value, digits = 1) { return value == null ? "–" : value.toFixed(digits); }

function count(value) { return value.toLocaleString("en"); }

function signed(value) { return value === null ? "–" : (value < 0 ? "−" : "+") + number(Math.abs(value)); }

/** With three digits; a learning rate in powers of ten. */
function short(value) {
  if (value == null) return "–";
  return value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function inWords(list) {
  return list.length < 2 ? list.join("") : `${list.slice(0, -1).join(", ")} and ${list.at(-1)}`;
}

function difference(a, b) { return a == null || b == null ? null : a - b; }

function mean(values) {
  const known = values.filter((value) => value != null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

/** NaN where there is nothing to choose from: the best of one is no news. */
function best(values, isLeast = false) {
  const known = values.filter((value) => value != null);
  return known.length > 1 ? (isLeast ? Math.min : Math.max)(...known) : NaN;
}

function rowColour(row) {
  const place = pseudoRows.indexOf(row);
  return place >= 0 ? `var(--pseudo-${place % 3})` : `var(--student-${predictionRows.indexOf(row) % 4})`;
}

/**
 * header: texts or elements. lines: [title, ...numbers]. bestIn: the best of each "line" or "column" is bold. costs:
 * columns, counted from 1, whose least number is best.
 */
function table(caption, header, lines, bestIn, costs = []) {
  const group = (line, column) =>
    (bestIn === "line" ? line.slice(1) : bestIn === "column" ? lines.map((other) => other[column]) : []);
  const isBest = (value, line, column) => value === best(group(line, column), costs.includes(column));
  const tableLine = (line) =>
    el("tr", {},
      el("th", { scope: "row", title: line[0].textContent ?? line[0] }, line[0]),
      ...line.slice(1).map((value, k) => el("td", { class: isBest(value, line, k + 1) && "best" }, number(value))));
  return el("table", {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...header.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...lines.map(tableLine)));
}

/** Shares in 0..1 (null = no value) as percentages, on the colour that colour(r, c) names. */
function heatMap(lineNames, columnNames, share, title, colour) {
  const cell = (r, c) => {
    const value = share(r, c);
    const depth = (70 * (value ?? 0)).toFixed(1); // not 100: the number must stay legible
    const style = `background:color-mix(in srgb, var(${colour(r, c)}) ${depth}%, transparent)`;
    const percent = value === null ? "–" : value < 0.005 ? "" : number(100 * value, 0);
    return el("td", { title: title(r, c), style }, percent);
  };
  const head = columnNames.map((name) => el("th", { scope: "col", title: name }, el("span", { class: "clip" }, name)));
  const lines = lineNames.map((name, r) =>
    el("tr", {}, el("th", { scope: "row", title: name }, name), ...columnNames.map((_, c) => cell(r, c))));
  return el("table", { class: "heat" },
    el("thead", {}, el("tr", {}, el("td"), ...head)),
    el("tbody", {}, ...lines));
}

/** A group of bars per name. series: [{title, colour, values}]; `full` is the value of a whole bar. */
function drawBars(place, groups, series, full, digits = 1) {
  const bar = (name, { title, colour, values }, k) =>
    el("div", { class: "bar", title: `${name}: ${title} ${number(values[k], digits)}` },
      el("i", { style: `width:${(100 * (values[k] ?? 0)) / full}%;background:${colour}` }),
      el("b", {}, number(values[k], digits)));
  place.replaceChildren(...groups.flatMap((name, k) => [
    el("div", { class: "clip", title: name }, name),
    el("div", { class: "track" }, ...series.map((line) => bar(name, line, k))),
  ]));
}
