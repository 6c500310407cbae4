// What write_report() filled in, and the constants of the page.
const { metrics, curves, verdicts, about, statistics, tags, engines, rounds } =
  JSON.parse(document.getElementById("report").textContent);
const { names, palette } = metrics.classes;
const rows = metrics.rows;

const PSEUDO = "pseudo-labels ", GLOBAL = "pseudo-labels global";
const NONE = 255; // train id of a pixel that is no class
const AGREED = [60, 160, 90], DISAGREED = [230, 90, 40];
const PAGE = 12; // images that the gallery shows before it is asked for all

const pseudoRows = rows.filter((row) => row.name.startsWith(PSEUDO));
const predictionRows = rows.filter((row) => !row.name.startsWith(PSEUDO));
const globalRow = rows.find((row) => row.name === GLOBAL);
const reference = globalRow ?? pseudoRows[0]; // what predictions are held against
const hasAgreement = Boolean(globalRow && predictionRows.length);
