// What is known of the whole data set: header, scores, classes, confusion, curves, image-level labels, engines.

function drawHeader() {
  const title = `${metrics.dataset} ${metrics.split}`;
  const time = String(about.time ?? "at an unknown time").replace("T", " ");
  document.title = `${title} - carbseg report`;
  byId("title").textContent = title;
  byId("subtitle").textContent = `carbseg report on ${count(metrics.images)} images of ${title}, ${time}`;
  byId("command").textContent = about.command ?? "unknown";
  const details = { versions: about.versions, settings: about.settings, students: about.students };
  byId("settings").textContent = JSON.stringify(details, null, 2);
  const tile = ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  byId("headline").replaceChildren(...headlines().map(tile));
}

/** The numbers that one asks for first, as [name, text]. */
function headlines() {
  const main = predictionRows.at(-1) ?? pseudoRows.at(-1);
  if (!main) return [];
  const tiles = [[`mIoU, ${main.name}`, number(main.miou)]];
  const rival = [...pseudoRows].sort((a, b) => b.miou - a.miou)[0];
  if (rival && rival !== main) tiles.push([`over ${rival.name}`, signed(difference(main.miou, rival.miou))]);
  if (main.boundary_miou != null) tiles.push(["boundary mIoU", number(main.boundary_miou)]);
  tiles.push(["pixel accuracy", number(main.pixel_accuracy)]);
  const weakest = names.filter((name) => main.iou[name] != null).sort((a, b) => main.iou[a] - main.iou[b])[0];
  if (weakest !== undefined) tiles.push([`weakest class, ${weakest}`, number(main.iou[weakest])]);
  return tiles;
}

const SUMMARY = {
  miou: "mIoU", boundary_miou: "boundary mIoU", category_miou: "category mIoU", pixel_accuracy: "pixel accuracy",
};

function drawSummary() {
  const keys = Object.keys(SUMMARY).filter((key) => rows.some((row) => row[key] != null));
  const lines = rows.map((row) => [row.name, ...keys.map((key) => row[key])]);
  const header = ["", ...keys.map((key) => SUMMARY[key])];
  byId("summary").replaceChildren(table("Percent; the best of each column is bold.", header, lines, "column"));
  byId("rules").replaceChildren(...(metrics.rules ?? []).map((rule) => el("li", {}, rule)));
}

// ---- Scores per class ---------------------------------------------------------------------------------------------

const CLASS_SCORES = {
  iou: "IoU", boundary_iou: "boundary IoU", precision: "precision", recall: "recall", category_iou: "category IoU",
};
const classView = { score: "iou", hidden: new Set(), sortedBy: null, descending: true };

function drawClassesSection() {
  const known = ([key]) => rows.some((row) => row[key] && Object.keys(row[key]).length);
  setOptions(byId("score"), Object.entries(CLASS_SCORES).filter(known), "iou");
  byId("score").onchange = (event) => {
    classView.score = event.target.value;
    drawClasses();
  };
  byId("rows").replaceChildren(...rows.map((row) =>
    button({ onclick: (event) => toggleBars(row, event.currentTarget), "aria-pressed": "true" },
      swatch(rowColour(row)), ` ${row.name}`)));
  drawClasses();
}

function drawClasses() {
  const values = (row) => row[classView.score] ?? {};
  const isCategory = classView.score === "category_iou";
  const keys = isCategory ? [...new Set(rows.flatMap((row) => Object.keys(values(row))))] : [...names];
  const sortRow = rows.find((row) => row.name === classView.sortedBy);
  const sign = classView.descending ? -1 : 1;
  if (sortRow) keys.sort((a, b) => sign * ((values(sortRow)[a] ?? -1) - (values(sortRow)[b] ?? -1)));
  const arrow = (row) => (row !== sortRow ? "" : classView.descending ? " ↓" : " ↑");
  const sorter = (name, label) => button({ title: "sort", onclick: () => sortClasses(name) }, label);
  const header = [sorter(null, isCategory ? "category" : "class"),
    ...rows.map((row) => sorter(row.name, row.name + arrow(row)))];
  const lines = keys.map((key) => [key, ...rows.map((row) => values(row)[key])]);
  byId("class-table").replaceChildren(table("Percent; the best row of each class is bold.", header, lines, "line"));
  const series = rows.filter((row) => !classView.hidden.has(row))
    .map((row) => ({ title: row.name, colour: rowColour(row), values: keys.map((key) => values(row)[key]) }));
  drawBars(byId("class-bars"), keys, series, 100);
}

/** By a row's score, best first, and worst first when asked again; null is the data set's own order. */
function sortClasses(rowName) {
  classView.descending = classView.sortedBy === rowName ? !classView.descending : true;
  classView.sortedBy = rowName;
  drawClasses();
  byId("class-table").querySelectorAll("button")[1 + rows.findIndex((row) => row.name === rowName)].focus();
}

function toggleBars(row, toggle) {
  const wasHidden = classView.hidden.delete(row);
  if (!wasHidden) classView.hidden.add(row);
  toggle.setAttribute("aria-pressed", String(wasHidden));
  drawClasses();
}

// ---- Confusion ----------------------------------------------------------------------------------------------------

function drawConfusionSection() {
  const counted = rows.filter((row) => row.confusion);
  const main = counted.findLast((row) => predictionRows.includes(row)) ?? counted.at(-1);
  setOptions(byId("confused"), counted.map(({ name }) => [name, name]), main.name);
  byId("confused").onchange = (event) => drawConfusion(counted.find(({ name }) => name === event.target.value));
  drawConfusion(main);
}

function drawConfusion({ confusion }) {
  const columns = [...names, "none"];
  const totals = confusion.map((line) => line.reduce((sum, pixels) => sum + pixels, 0));
  const share = (r, c) => (totals[r] ? confusion[r][c] / totals[r] : null);
  const title = (r, c) => (totals[r]
    ? `${names[r]} called ${columns[c]}: ${number(100 * share(r, c), 2)} %, ${count(confusion[r][c])} pixels`
    : `no pixel is ${names[r]}`);
  const colour = (r, c) => (r === c ? "--hit" : "--miss");
  byId("heat").replaceChildren(heatMap(names, columns, share, title, colour));
  const mistakes = names.flatMap((_, r) => columns.map((_, c) => [r, c])).filter(([r, c]) => r !== c && share(r, c));
  mistakes.sort(([r, c], [s, d]) => share(s, d) - share(r, c));
  byId("worst").replaceChildren(...mistakes.slice(0, 8).map(([r, c]) => el("li", {}, title(r, c))));
}

// ---- Curves -------------------------------------------------------------------------------------------------------

const CHARTS = [ // lines: [key in metrics.jsonl, name, colour]; top: where the axis ends, if not at the largest value
  { title: "loss", lines: [["loss", "loss", "--text"]] },
  { title: "validation mIoU (%)", lines: [["val_miou", "mIoU", "--accent"]] },
  { title: "loss of both regions",
    lines: [["consistent_loss", "consistent", "--hit"], ["inconsistent_loss", "inconsistent", "--miss"]],
    legend: "green: consistent, orange: inconsistent" },
  { title: "agreed share of pixels", lines: [["agreed", "agreed", "--hit"]], top: 1 },
  { title: "balance weight w", lines: [["weight", "w", "--text"]] },
  { title: "learning rate", lines: [["learning_rate", "rate", "--text"]] },
];

function drawCurves() {
  for (const [student, steps] of Object.entries(curves)) {
    const isKnown = ({ lines }) => steps.some((step) => lines.some(([key]) => step[key] != null));
    const charts = CHARTS.filter(isKnown).map((chart) => drawChart(chart, steps));
    if (charts.length) byId("curves").append(el("h3", {}, student), el("div", { class: "charts" }, ...charts));
  }
}

/** One quantity over the steps; the warm-up, where there are no regions yet, is shaded. */
function drawChart({ title, lines, top, legend = "" }, steps) {
  const [left, right, ceiling, base] = [44, 312, 8, 112]; // of a drawing of 320 x 130
  const [first, last] = [steps[0].step, steps.at(-1).step];
  const max = top ?? (Math.max(...steps.flatMap((step) => lines.map(([key]) => step[key] ?? 0))) || 1);
  const x = (step) => left + ((right - left) * (step - first)) / (last - first || 1);
  const y = (value) => base - ((base - ceiling) * value) / max;
  const grid = [0, max / 2, max].flatMap((value) => [
    svg("line", { class: "axis", x1: left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
  ]);
  const ends = [svg("text", { x: left, y: 126 }, `step ${first}`),
    svg("text", { x: right, y: 126, "text-anchor": "end" }, String(last))];
  const curve = ([key, , colour]) => {
    const points = steps.filter((step) => step[key] != null).map((step) => `${x(step.step)} ${y(step[key])}`);
    if (points.length === 1) points.push(points[0]); // a line of no length, with round ends, is a dot
    return svg("path", { d: points.length ? `M${points.join("L")}` : "", style: `stroke:var(${colour})` });
  };
  const regions = steps.find((step) => step.agreed != null) ?? steps[0];
  const area = { x: left, y: ceiling, width: x(regions.step) - left, height: base - ceiling };
  const warmup = svg("rect", { class: "warmup", ...area }, svg("title", {}, "warm-up"));
  const cursor = svg("line", { class: "cursor", y1: ceiling, y2: base, visibility: "hidden" });
  const caption = el("figcaption", {}, legend);
  const drawing = svg("svg", { viewBox: "0 0 320 130", role: "img", "aria-label": title },
    warmup, ...grid, ...ends, ...lines.map(curve), cursor);
  drawing.onpointermove = ({ offsetX }) => {
    const share = ((offsetX * 320) / drawing.clientWidth - left) / (right - left);
    const distance = ({ step }) => Math.abs(step - first - share * (last - first));
    const step = steps.reduce((near, other) => (distance(other) < distance(near) ? other : near));
    fill(cursor, { x1: x(step.step), x2: x(step.step), visibility: "visible" });
    const values = lines.map(([key, name]) => `${name} ${short(step[key])}`);
    caption.textContent = [`step ${step.step}`, ...values].join(", ");
  };
  drawing.onpointerleave = () => {
    fill(cursor, { visibility: "hidden" });
    caption.textContent = legend;
  };
  return el("figure", {}, el("strong", {}, title), drawing, caption);
}

// ---- Regions against truth ----------------------------------------------------------------------------------------

const DIAGNOSIS = [
  { title: "right pseudo-labels (share)", top: 1,
    lines: [["right_consistent", "consistent", "--hit"], ["right_inconsistent", "inconsistent", "--miss"]],
    legend: "green: consistent, orange: inconsistent" },
  { title: "consistent share of pixels", lines: [["consistent", "consistent", "--hit"]], top: 1 },
];

function drawBalance() {
  for (const [student, sentence] of Object.entries(verdicts)) {
    const diagnosed = curves[student].filter((line) => line.diagnosis);
    const charts = DIAGNOSIS.map((chart) =>
      drawChart(chart, diagnosed.map(({ step, agreed, diagnosis }) => ({ step, agreed, ...diagnosis }))));
    byId("balance").append(el("h3", {}, student), el("p", { class: "verdict" }, sentence),
      el("div", { class: "columns" },
        el("div", { class: "charts" }, ...charts),
        el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `regions of ${student}` },
          regionsTable(diagnosed.at(-1)))));
  }
}

function regionsTable({ step, weight, class_weights: weights, diagnosis }) {
  const percent = (share) => (share == null ? null : 100 * share);
  const line = (name, { consistent, right_consistent: inside, right_inconsistent: outside }) =>
    [name, ...[consistent, inside, outside, weights?.[name] ?? weight].map(percent)];
  const lines = names.filter((name) => diagnosis.classes[name]).map((name) => line(name, diagnosis.classes[name]));
  const header = ["class", "consistent", "right, consistent", "right, inconsistent", "weight w"];
  return table(`Percent of each class's pseudo-labels at step ${step}.`, header, lines);
}

// ---- Image-level labels -------------------------------------------------------------------------------------------

function drawStatistics() {
  const { classes, images, positives, co_occurrence: together } = statistics;
  byId("statistics-words").append(...statisticsInWords().map((sentence) => el("p", {}, sentence)));
  const bars = (place, groups, values, full) =>
    drawBars(byId(place), groups, [{ title: "images", colour: "var(--accent)", values }], full, 0);
  bars("positives", classes, classes.map((name) => positives[name] ?? 0), images || 1);
  const [sizes, counts] = [0, 1].map((part) => statistics.classes_per_image.map((pair) => pair[part]));
  bars("classes-per-image", sizes.map((k) => (k === 1 ? "1 class" : `${k} classes`)), counts, Math.max(1, ...counts));
  const title = (r, c) => (together[r][c] === null
    ? `no image shows ${classes[r]}`
    : `of the images that show ${classes[r]}, ${number(100 * together[r][c])} % show ${classes[c]}`);
  byId("together").append(heatMap(classes, classes, (r, c) => together[r][c], title, () => "--accent"));
}

function statisticsInWords() {
  const { dataset, split, images, classes, always, never, ruled_out: ruledOut } = statistics;
  const nearly = (statistics.nearly_always ?? []).filter((name) => !always.includes(name));
  const shown = number(statistics.mean_classes_per_image);
  const sentences = [
    `${dataset} ${split}: ${count(images)} images, which show ${shown} of ${classes.length} classes on average.`,
    always.length
      ? `Every image shows ${inWords(always)}: of these, image-level labels tell nothing.`
      : "No class is shown by every image.",
  ];
  if (nearly.length) sentences.push(`At least 95 % of the images show ${inWords(nearly)}.`);
  if (never.length) sentences.push(`No image shows ${inWords(never)}.`);
  const percent = ruledOut == null ? null : number(100 * ruledOut, 0);
  if (percent !== null) sentences.push(`An image's labels rule out ${percent} % of the classes on average.`);
  return sentences;
}

function drawTags() {
  const { dataset, split, images } = tags;
  const views = [...new Set(tags.rows.flatMap((row) => Object.keys(row.miou)))];
  const lines = tags.rows.map((row) => [row.name, row.precision, row.recall, ...views.map((view) => row.miou[view])]);
  const header = ["labels", "precision", "recall", ...views.map((view) => `mIoU ${view}`)];
  byId("tags-words").textContent = `Pseudo-labels of ${count(images)} images of ${dataset} ${split}, made from `
    + "image-level labels of various quality; precision and recall are those of the image-level labels.";
  byId("tags-table").append(table("Percent.", header, lines));
}

// ---- Label engines ------------------------------------------------------------------------------------------------

const LABEL_SCORES = { miou: "mIoU", precision: "precision", recall: "recall" };

function drawEngines() {
  const found = Object.entries(engines.rows);
  const keysOf = (part) => [...new Set(found.flatMap(([, row]) => Object.keys(row[part])))];
  const labels = keysOf("labels").flatMap((split) => Object.keys(LABEL_SCORES).map((score) => [split, score]));
  const students = keysOf("students");
  const lines = found.map(([name, row]) => [
    name,
    row.seconds.train == null ? null : 1000 * row.seconds.train,
    ...labels.map(([split, score]) => row.labels[split]?.[score]),
    ...students.map((student) => row.students[student]),
  ]);
  const header = ["engine", "ms / image", ...labels.map(([split, score]) => `${split} ${LABEL_SCORES[score]}`),
    ...students.map((student) => `student ${student}`)];
  byId("engines-words").textContent = `Pseudo-labels of ${engines.dataset}, by what made them: time for an image, scores `
    + `of the pseudo-labels of each split, and mIoU on ${engines.split} of the students that were trained on them.`;
  const caption = "Scores in percent; the best of each column is bold.";
  byId("engines-table").append(table(caption, header, lines, "column", [1]));
}

// ---- Rounds of training -------------------------------------------------------------------------------------------

function drawRounds() {
  const found = Object.entries(rounds.rows);
  const students = Object.keys(found[0][1].students);
  const scores = { ...LABEL_SCORES, labelled: "labelled" };
  const lines = found.map(([name, row]) => [
    name,
    ...Object.keys(scores).map((score) => row.labels?.[score]),
    ...students.map((student) => row.students[student]),
  ]);
  const header = ["round", ...Object.values(scores), ...students.map((student) => `student ${student}`)];
  const how = rounds.settings.refine ? "refined within each image" : "as they are";
  byId("rounds-words").textContent = `From round 1 on, pseudo-labels are what student ${students[0]} of the round before `
    + `predicts, ${how}. Scores of the pseudo-labels of ${rounds.dataset} train, the share of its pixels that have one, `
    + `and mIoU of the students on ${rounds.split}.`;
  byId("rounds-table").append(table("Percent; the best of each column is bold.", header, lines, "column"));
}
