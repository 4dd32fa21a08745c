// Error over the input domain, and the histogram of ULP.

const REGIMES = ["ordinary", "edge", "tail", "huge", "long", "subnormal", "kink", "hard", "special", "exhaustive"];
const SHAPES = ["circle", "square", "diamond", "triangle"];

function regimeClass(regime) {
  const place = REGIMES.indexOf(regime);
  return `r${(place < 0 ? REGIMES.length : place) % 9}`;
}

function shapeOf(regime, x, y, size) {
  const shape = SHAPES[Math.max(0, REGIMES.indexOf(regime)) % SHAPES.length];
  if (shape === "circle") return svg("circle", { cx: x, cy: y, r: size });
  const points = {
    square: [
      [-1, -1],
      [1, -1],
      [1, 1],
      [-1, 1],
    ],
    diamond: [
      [0, -1.4],
      [1.4, 0],
      [0, 1.4],
      [-1.4, 0],
    ],
    triangle: [
      [0, -1.3],
      [1.3, 1],
      [-1.3, 1],
    ],
  }[shape].map(([dx, dy]) => `${(x + dx * size).toFixed(1)},${(y + dy * size).toFixed(1)}`);
  return svg("polygon", { points: points.join(" ") });
}

function amount(errorRatio, limit) {
  if (errorRatio === 0) return "exact";
  return limit ? `${percent(errorRatio)} of the limit` : `${short(errorRatio)} ULP`;
}

/** Error over the input domain of one tensor: a signed logarithmic axis, a point a group of binades and regime. */
function domain(result, tensor) {
  const measured = result.raw.m.filter((m) => text(m[0]) === tensor && m[8].length);
  if (!measured.length) return null;
  const [first, width] = measured[0][8];
  const limit = number(measured[0][6]);
  const points = measured.flatMap((m) =>
    m[8][2].map((at, i) => ({ at, errorRatio: number(m[8][3][i]), regime: text(m[1]) })),
  );
  const most = Math.max(...points.map((p) => Math.abs(p.at)), 1);
  const W = 960,
    H = 320,
    left = 58,
    right = 12,
    top = 46,
    floor = H - 54;
  const middle = (left + W - right) / 2;
  const x = (at) => middle + (at / (most + 0.5)) * ((W - left - right) / 2);
  const worst = points.reduce((a, b) => (b.errorRatio > a.errorRatio ? b : a));
  const high = 10 ** Math.ceil(Math.log10(Math.max(worst.errorRatio, 1)) + 0.3);
  const y = logScale(1e-3, high, floor, top);
  // where a number stands on the axis: the group of its binade, and how far into it
  const place = (value) => {
    if (value === 0) return 0;
    if (!Number.isFinite(value)) return Math.sign(value) * most;
    return Math.sign(value) * Math.max(0.5, (Math.log2(Math.abs(value)) - first) / width + 0.5);
  };
  const shown = { first, width, most, x, y, W, H, left, right, top, floor, high, place };
  const marks = [
    ...axes(shown, limit ? "worst error as a share of its limit" : "worst error in ULP (the limit is 0)"),
    ...intervals(result, tensor, shown),
  ];
  for (const p of [...points].sort((a, b) => a.errorRatio - b.errorRatio)) {
    const words = `${group(p.at, first, width, most)}\n${p.regime}: ${amount(p.errorRatio, limit)}`;
    const mark = shapeOf(p.regime, x(p.at), y(p.errorRatio), p === worst ? 4 : 2.8);
    mark.setAttribute("class", `point ${regimeClass(p.regime)}`);
    marks.push(tipped(mark, words));
  }
  if (worst.errorRatio > 0) {
    const at = x(worst.at),
      end = at > W * 0.75;
    marks.push(svg("circle", { cx: at, cy: y(worst.errorRatio), r: 9, class: "ring" }));
    marks.push(
      label(
        at + (end ? -13 : 13),
        y(worst.errorRatio) - 8,
        `worst ${limit ? percent(worst.errorRatio) : short(worst.errorRatio) + " ULP"}`,
        "strong",
        end ? "end" : "start",
      ),
    );
  }
  const summary = `worst ${amount(worst.errorRatio, limit)}, ${group(worst.at, first, width, most)}`;
  const title = `Error over the input domain: ${tensor} of ${result.id}; ${summary}`;
  const intervalClasses = marks.filter((mark) => mark.classList.contains("found")).map((mark) => mark.getAttribute("class"));
  return element("div", null, chart(W, H, title, marks), legend(unique(points.map((p) => p.regime)), unique(intervalClasses)));
}

function axes(s, unit) {
  const parts = [];
  for (const decade of decades(1e-3, s.high, 7)) {
    const at = s.y(10 ** decade * (decade === -3 ? 1 : 1.0000001));
    parts.push(
      line(s.left, at, s.W - s.right, at, "grid"),
      label(
        s.left - 6,
        at + 4,
        decade === -3 ? "≤0.1%" : decade <= 0 ? power(decade + 2) + "%" : power(decade) + "×",
        "tick",
        "end",
      ),
    );
  }
  parts.push(
    line(s.left, s.y(1), s.W - s.right, s.y(1), "limit"),
    label(s.W - s.right, s.y(1) - 4, "limit", "limit-name", "end"),
  );
  for (const sign of [-1, 1]) {
    let last = 0;
    for (let exponent = -45; exponent <= 38; exponent++) {
      const at = (exponent * Math.log2(10) - s.first) / s.width + 0.5;
      if (at < 1 || at > s.most - 1 || at - last < s.most / 6.5) continue;
      if (s.most > 60 && exponent % 5) continue;
      last = at;
      parts.push(
        line(s.x(sign * at), s.floor, s.x(sign * at), s.floor + 4, "axis"),
        label(s.x(sign * at), s.floor + 17, (sign < 0 ? "−" : "") + power(exponent), "tick"),
      );
    }
    parts.push(label(s.x(sign * s.most), s.floor + 17, sign < 0 ? "−∞" : "∞", "tick"));
  }
  parts.push(line(s.x(0), s.top, s.x(0), s.floor + 4, "grid"), label(s.x(0), s.floor + 17, "0", "tick"));
  parts.push(line(s.left, s.floor, s.W - s.right, s.floor, "axis"));
  parts.push(
    label((s.left + s.W - s.right) / 2, s.H - 14, `${unit}, over the input (logarithmic on both sides of 0)`, "tick"),
  );
  return parts;
}

/** Findings as bars above the plot, over the inputs where they are: also those that have no magnitude. */
function intervals(result, tensor, s) {
  const rows = [];
  return (result.raw.f || [])
    .filter((f) => text(f[2]) === tensor && text(f[3]))
    .map((f) => {
      const ends = [text(f[3]), text(f[4])].map((hex) => ofHex(hex, result.dtype));
      if (ends.some(Number.isNaN)) return null;
      const registered = Boolean(text(f[5]));
      const [from, to] = ends.map((value) => s.x(s.place(value)));
      let row = rows.findIndex((used) => used < from - 3);
      if (row < 0) row = rows.length;
      rows[row] = Math.max(to, from + 3);
      const at = s.top - 8 - 6 * (row % 6);
      const mark = svg("rect", {
        x: from - 1.5,
        y: at,
        width: Math.max(3, to - from + 3),
        height: 4,
        class: registered ? `found known of${f[11]}` : "found new",
      });
      return tipped(
        mark,
        `${markOf(registered ? KNOWN : NEW, f[11])} ${SEVERITIES[f[11]] || ""} ${text(f[0])} in ${text(f[1])}, ${count(f[8], "element")}\n` +
          `x from ${decimal(text(f[3]), result.dtype)} to ${decimal(text(f[4]), result.dtype)}`,
      );
    });
}

function group(at, first, width, most) {
  if (at === 0) return "x = 0";
  const sign = at < 0 ? "−" : "",
    k = Math.abs(at);
  const low = first + width * (k - 1);
  if (low > 127 || (width === 1 && low > 15)) return `x = ${sign}∞`;
  return width === 1
    ? `|x| in [2^${low}, 2^${low + 1}), x ${at < 0 ? "<" : ">"} 0`
    : `${sign}[2^${low}, 2^${low + width}) ≈ ${sign}${short(2 ** low)} … ${sign}${short(2 ** (low + width))}`;
}

function legend(regimes, intervalClasses) {
  const key = (mark, words) =>
    element("span", null, svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, mark), words);
  return element(
    "p",
    { class: "legend" },
    regimes.map((regime) => {
      const mark = shapeOf(regime, 6, 6, 4);
      mark.setAttribute("class", `point ${regimeClass(regime)}`);
      return key(mark, regime);
    }),
    intervalClasses.map((kind) =>
      key(
        svg("rect", { x: 0, y: 4, width: 12, height: 4, class: kind }),
        `inputs of ${kind === "found new" ? "new" : "known"} findings${SEVERITIES[kind.slice(-1)] ? ` (${SEVERITIES[kind.slice(-1)]})` : ""}, above`,
      ),
    ),
  );
}

/** How many elements have which error in ULP, over all regimes of a tensor. */
function histogram(result, tensor) {
  const bins = new Array(36).fill(0);
  for (const m of result.raw.m.filter((m) => text(m[0]) === tensor)) {
    const [start, ...counts] = m[7];
    counts.forEach((n, i) => {
      bins[start + i] += n;
    });
  }
  const total = bins.reduce((a, b) => a + b, 0);
  if (!total) return null;
  const last = bins.findLastIndex((n) => n > 0);
  const W = 960,
    H = 190,
    left = 58,
    floor = H - 42,
    top = 18,
    wide = (W - left - 12) / Math.max(last + 1, 16);
  const high = Math.log10(Math.max(...bins) + 1);
  const parts = [line(left, floor, W - 12, floor, "axis"), label(8, 10, "elements (log)", "tick", "start")];
  for (let decade = 0; decade <= high; decade++) {
    const at = floor - (Math.log10(10 ** decade + 1) / high) * (floor - top);
    parts.push(
      line(left, at, W - 12, at, "grid"),
      label(left - 6, at + 4, (10 ** decade).toLocaleString("en"), "tick", "end"),
    );
  }
  bins.slice(0, last + 1).forEach((n, bin) => {
    const at = left + bin * wide,
      tall = (Math.log10(n + 1) / high) * (floor - top);
    if (bin % 2 === 0 || last < 18) parts.push(label(at + wide / 2, floor + 14, binName(bin), "tick"));
    if (n)
      parts.push(
        tipped(
          svg("rect", { x: at + 1, y: floor - tall, width: wide - 2, height: tall, class: "bar" }),
          `${binRange(bin)}: ${count(n, "element")} (${short((100 * n) / total)} %)`,
        ),
      );
  });
  parts.push(label((left + W) / 2, H - 8, "error in ULP", "tick"));
  return chart(W, H, `Histogram of ULP: ${tensor} of ${result.id}, ${count(total, "element")}`, parts);
}

const binName = (bin) =>
  bin === 0
    ? "exact"
    : bin === 1
      ? "<2⁻⁸"
      : bin < 9
        ? `1/${2 ** (10 - bin)}`
        : bin < 20
          ? String(2 ** (bin - 10))
          : `2^${bin - 10}`;
function binRange(bin) {
  if (bin === 0) return "exact";
  if (bin === 1) return "below 1/256 ULP";
  return `${short(2 ** (bin - 10))} to ${bin === 35 ? "any number of" : short(2 ** (bin - 9))} ULP`;
}
