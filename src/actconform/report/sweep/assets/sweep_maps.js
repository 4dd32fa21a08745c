// Maps of errors: a panel for each sweep, the worst of each binade from the largest negative number to the largest positive.

const MAP = { W: 540, H: 150, left: 48, right: 6, top: 8, floor: 122 };
const LOW = 0.01,
  HIGH = 1e9;
const SIDE = 255; // binades of one sign

function path(errors, kind) {
  const { W, left, right, top, floor } = MAP;
  const y = logScale(LOW, HIGH, floor, top);
  const step = (W - left - right) / errors.length;
  const parts = errors.map((error, place) =>
    error === null ? "" : `M${(left + place * step).toFixed(1)} ${y(number(error)).toFixed(1)}h${step.toFixed(2)}`,
  );
  return svg("path", { class: kind, d: parts.join("") });
}

function errorMap(row) {
  const { W, H, left, right, top, floor } = MAP;
  const y = logScale(LOW, HIGH, floor, top);
  const x = (exponent, sign) => left + (((sign < 0 ? -1 : 1) * (exponent + 127) + SIDE) / (2 * SIDE)) * (W - left - right);
  const parts = [line(left, floor, W - right, floor, "axis"), line(left, top, left, floor, "axis")];
  for (const power of decades(LOW, HIGH, 5))
    parts.push(line(left, y(10 ** power), W - right, y(10 ** power), "grid"), label(left - 4, y(10 ** power) + 5, `1e${power}`, null, "end"));
  for (const [exponent, sign] of [[64, -1], [0, -1], [-64, -1], [-64, 1], [0, 1], [64, 1]])
    parts.push(label(x(exponent, sign), floor + 17, `${sign < 0 ? "−" : ""}2^${exponent}`));
  parts.push(line(x(-127, 1), top, x(-127, 1), floor, "axis"), label(x(-127, 1), floor + 17, "0"));
  parts.push(path(row.map[0], "ulp"), path(row.map[1], "scaled"));
  const words = `${row.kernel}, ${row.aspect}, ${row.route}: at most ${short(row.ulp)} ULP at ${row.ulpAt}, ${short(row.scaled)} scaled at ${row.scaledAt}`;
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": words, tabindex: "0" }, parts);
  return element("div", { class: "map-panel" }, element("h4", null, row.route, element("span", null, `${row.version}, ${row.shownInputs}`)), tipped(drawing, words));
}

function maps() {
  const groups = unique(data.rows.map((row) => `${row.kernel}, ${row.aspect}`));
  return groups.flatMap((name) => [
    element("h3", null, name),
    element("div", { class: "map-panels" }, data.rows.filter((row) => `${row.kernel}, ${row.aspect}` === name).map(errorMap)),
  ]);
}
