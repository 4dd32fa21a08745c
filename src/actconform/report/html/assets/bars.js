// Bars against a limit, and the line over time.

/** A bar chart with names, and the limit where there is one; `rows` are {name, value, words, bad, low, high}. */
function bars(title, rows, { limit = true, unit = percent } = {}) {
  const W = 960,
    each = 20,
    left = 190,
    right = 90,
    top = limit ? 20 : 6,
    H = top + rows.length * each + 8;
  const high =
    Math.max(...rows.map((row) => row.high ?? (Number.isFinite(row.value) ? row.value : 0)), limit ? 1 : 0) * 1.05 || 1;
  const log = limit && high > 20;
  const scale = log ? logScale(1e-3, high, 0, -1) : null;
  const x = (value) => left + (W - left - right) * (log ? -scale(value) : Math.min(value, high) / high);
  const parts = limit
    ? [
        line(x(1), top - 4, x(1), H - 4, "limit"),
        label(x(1), top - 8, log ? "limit (log scale)" : "limit", "limit-name"),
      ]
    : [];
  rows.forEach((row, at) => {
    const y = top + at * each;
    const name = row.name.length > 30 ? `${row.name.slice(0, 29)}…` : row.name;
    parts.push(label(left - 8, y + 14, name, "tick", "end"));
    parts.push(
      tipped(
        svg("rect", {
          x: left,
          y: y + 4,
          width: Math.max(1, x(row.value) - left),
          height: each - 7,
          class: row.bad ? "bar bad" : "bar",
        }),
        row.words,
      ),
    );
    if (row.low !== undefined)
      parts.push(
        line(x(row.low), y + 10, x(row.high), y + 10, "whisker"),
        line(x(row.low), y + 6, x(row.low), y + 15, "whisker"),
        line(x(row.high), y + 6, x(row.high), y + 15, "whisker"),
      );
    parts.push(label(Math.max(x(row.high ?? row.value), left) + 6, y + 14, unit(row.value), "tick", "start"));
  });
  return chart(W, H, title, parts);
}

/** The worst error ratio of a case over past runs, oldest on the left. */
function trend(result) {
  const points = result.raw.t.map(([when, errorRatio, verdict]) => ({
    when: text(when),
    errorRatio: number(errorRatio),
    verdict: text(verdict),
  }));
  return drawTrend(result.id, points);
}

/** The same of points {when, errorRatio, verdict}. */
function drawTrend(name, points) {
  const W = 960,
    H = 110,
    left = 58,
    floor = H - 26,
    top = 14;
  const high =
    10 ** Math.ceil(Math.log10(Math.max(1, ...points.map((p) => (Number.isFinite(p.errorRatio) ? p.errorRatio : 1)))) + 0.2);
  const y = logScale(1e-3, high, floor, top),
    x = (at) => left + 8 + (at * (W - left - 28)) / Math.max(1, points.length - 1);
  const parts = [
    line(left, floor, W - 12, floor, "axis"),
    line(left, y(1), W - 12, y(1), "limit"),
    label(left - 6, y(1) + 4, "limit", "tick", "end"),
  ];
  const measuredPoints = points.map((p, at) => ({ ...p, at })).filter((p) => p.errorRatio !== null);
  parts.push(svg("polyline", { points: measuredPoints.map((p) => `${x(p.at)},${y(p.errorRatio)}`).join(" "), class: "trend" }));
  points.forEach((p, at) => {
    const bad = !["PASS", "XFAIL"].includes(p.verdict);
    parts.push(
      tipped(
        svg("circle", {
          cx: x(at),
          cy: p.errorRatio === null ? floor : y(p.errorRatio),
          r: 3.5,
          class: bad ? "point bad" : "point",
        }),
        `${p.when}: ${p.errorRatio === null ? "nothing measured" : percent(p.errorRatio)}, ${p.verdict}`,
      ),
    );
  });
  parts.push(
    label(left, H - 8, points[0].when.slice(0, 10), "tick", "start"),
    label(W - 12, H - 8, points.at(-1).when.slice(0, 10), "tick", "end"),
  );
  return chart(W, H, `Worst error of ${name} over ${points.length} runs`, parts);
}
