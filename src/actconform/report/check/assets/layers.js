// The layers in the order of the graph, each error against its bound; searched and filtered.

const layers = data.layers.map((raw, index) => {
  const ratio = number(raw[6]);
  return {
    index,
    raw,
    run: data.runs[raw[0]],
    runPlace: raw[0],
    place: raw[1],
    node: text(raw[2]),
    op: text(raw[3]),
    tensor: text(raw[4]),
    shape: text(raw[5]),
    ratio,
    error: number(raw[7]),
    bound: number(raw[8]),
    looseness: number(raw[9]),
    lowest: raw[11],
    highest: raw[12],
    segment: raw[17],
    nonfinite: raw[19],
    wantedShape: raw[20],
    trained: raw[21] === null ? "" : text(raw[21]),
    over: !(ratio <= 1),
    link: `#layer=${index}`,
  };
});
const filters = { text: "", op: "", run: startingRun(), over: false, sort: "graph" };
let shownLayers = [];
let layerList = null;

/** The run in which the first fault is; else that with the most tensors. */
function startingRun() {
  const fault = data.runtimes.map((runtime, place) => ({ ...runtime.fault, place })).find((entry) => entry.blame);
  const of = fault ? data.runs.findIndex((run) => run[0] === fault.place && run[1] === fault.level && run[2] === fault.sample) : -1;
  if (of >= 0) return String(of);
  const tensors = data.runs.map((_, place) => layers.filter((layer) => layer.runPlace === place).length);
  return data.runs.length ? String(tensors.indexOf(Math.max(...tensors))) : "";
}

function fits(layer) {
  if (filters.run !== "" && layer.runPlace !== Number(filters.run)) return false;
  if (filters.op && layer.op !== filters.op) return false;
  if (filters.over && !layer.over) return false;
  return !filters.text || has(`${layer.node} ${layer.op} ${layer.tensor} ${layer.trained}`, filters.text);
}

const SORTS = {
  graph: ["in the order of the graph", null],
  ratio: ["nearest to the bound first", (a, b) => b.ratio - a.ratio],
  looseness: ["loosest bound first", (a, b) => b.looseness - a.looseness],
};

function refreshLayers() {
  shownLayers = layers.filter(fits);
  const order = SORTS[filters.sort][1];
  if (order) shownLayers.sort(order);
  layerList.box.classList.toggle("one-run", filters.run !== "");
  layerList.show(shownLayers);
  const over = shownLayers.filter((layer) => layer.over).length;
  document.getElementById("layer-count").textContent =
    `${shownLayers.length.toLocaleString("en")} of ${count(layers.length, "judged tensor")}, ${over.toLocaleString("en")} over the bound`;
  document.getElementById("layer-map").replaceChildren(...[overview()].filter(Boolean));
}

function select(name, label, options) {
  return dropdown(`by-${name}`, label, options, filters[name], (value) => {
    filters[name] = value;
    refreshLayers();
  });
}

function layerControls() {
  const ops = unique(layers.map((layer) => layer.op)).sort();
  return element(
    "div",
    { class: "controls" },
    element(
      "label",
      { class: "grow" },
      element("span", { class: "unseen" }, "search layers"),
      element("input", {
        type: "search",
        id: "by-text",
        placeholder: "search layers: name, operator, tensor  ( / )",
        value: filters.text,
        oninput: (event) => {
          filters.text = event.target.value;
          refreshLayers();
        },
      }),
    ),
    select("op", "operator", [["", "any operator"], ...ops.map((op) => [op, op])]),
    select("run", "run", [["", "all runs"], ...data.runs.map((run, place) => [String(place), runName(run)])]),
    select(
      "sort",
      "order",
      Object.entries(SORTS).map(([key, [words]]) => [key, words]),
    ),
    element(
      "label",
      { class: "check" },
      element("input", {
        type: "checkbox",
        id: "over",
        checked: filters.over,
        onchange: (event) => {
          filters.over = event.target.checked;
          refreshLayers();
        },
      }),
      "over the bound",
    ),
  );
}

const LOW = 1e-3,
  HIGH = 1e3;

/** Error over bound on a logarithmic scale, with a mark at the bound. */
function ratioBar(layer) {
  const W = 120,
    x = (ratio) => (W * (Math.log10(Math.min(Math.max(ratio, LOW), HIGH)) - Math.log10(LOW))) / Math.log10(HIGH / LOW);
  const width = layer.ratio > LOW || Number.isNaN(layer.ratio) ? x(Number.isNaN(layer.ratio) ? HIGH : layer.ratio) : 0;
  return svg(
    "svg",
    { class: "ratio", viewBox: `0 0 ${W} 12`, "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("rect", { x: 0, y: 0, width: W, height: 12, class: "track" }),
    svg("rect", { x: 0, y: 2, width, height: 8, class: layer.over ? "bar over" : "bar" }),
    svg("line", { x1: x(1), y1: 0, x2: x(1), y2: 12, class: "bound-mark" }),
  );
}

function layerSection() {
  if (!layers.length) return null;
  const several = data.runs.length > 1;
  const columns = [
    { name: "#", kind: "place roomy", cell: (layer) => String(layer.place + 1) },
    {
      name: "layer",
      kind: "wide",
      cell: (layer) => [
        element("a", { href: layer.link, class: "name", "aria-label": brief(layer.node || layer.tensor, 200) }, stemAndLeaf(layer.node || layer.tensor)),
        element("span", { class: "op phone" }, layer.op),
      ],
    },
    { name: "operator", kind: "op roomy", cell: (layer) => layer.op },
    { name: "error / bound", kind: "bar-cell", cell: ratioBar },
    { name: "", kind: "number ratio-cell", cell: (layer) => (layer.over ? element("strong", { class: "bad" }, over(layer)) : percent(layer.ratio)) },
    { name: "error", kind: "number roomy", cell: (layer) => short(layer.error) },
    { name: "bound", kind: "number roomy", cell: (layer) => short(layer.bound) },
    { name: "loosest", kind: "number roomier", cell: (layer) => share(layer.looseness) },
    { name: "nodes", kind: "narrow number roomier", cell: (layer) => String(layer.segment.length || 1) },
    { name: "range", kind: "range roomier", cell: (layer) => (layer.lowest === layer.highest ? short(layer.lowest) : `${short(layer.lowest)} … ${short(layer.highest)}`) },
    several && { name: "run", kind: "run roomier", cell: (layer) => runName(layer.run) },
  ].filter(Boolean);
  layerList = longTable("Layers", columns);
  requestAnimationFrame(refreshLayers);
  return element(
    "section",
    { id: "layers" },
    element("h2", null, "Layers"),
    element(
      "p",
      { class: "quiet" },
      "Each layer's error, given what it read, against the bound that rounding allows it. The bar is logarithmic; its mark is the bound.",
    ),
    layerControls(),
    element("div", { id: "layer-map" }),
    element("p", { class: "quiet", id: "layer-count", role: "status" }),
    layerList.box,
  );
}

/** A name whose last part stays where there is no room for all of it. */
function stemAndLeaf(name) {
  const leaf = name.slice(0, -1).search(/[^/.]*$/);
  return [element("span", { class: "stem" }, brief(name.slice(0, leaf), 120)), element("span", { class: "leaf" }, brief(name.slice(leaf), 80))];
}

/** How far over the bound: a multiple, or why there is none. */
function over(layer) {
  if (Number.isFinite(layer.ratio)) return `${short(layer.ratio)}×`;
  if (layer.wantedShape !== null) return "shape";
  return layer.nonfinite ? "NaN or ∞" : "not exact";
}

const BUCKETS = 300;

/** The largest ratio along the graph, at most one point for each part of it. */
function overview() {
  const points = [...shownLayers].sort((a, b) => a.place - b.place);
  if (points.length < 3) return null;
  const W = figureWidth(),
    H = 120,
    left = 54,
    right = 12,
    floor = H - 22,
    top = 10;
  const last = Math.max(1, ...[points.at(-1).place]);
  const finite = points.map((layer) => layer.ratio).filter(Number.isFinite);
  const high = 10 ** Math.min(12, Math.max(1, Math.ceil(Math.log10(Math.max(1, ...largestOf(finite))) + 0.1)));
  const y = logScale(1e-4, high, floor, top);
  const x = (place) => left + ((W - left - right) * place) / last;
  const worst = new Map();
  for (const layer of points) {
    const bucket = Math.floor((BUCKETS * layer.place) / (last + 1));
    const before = worst.get(bucket);
    if (!before || !(layer.ratio <= before.ratio)) worst.set(bucket, layer);
  }
  const parts = [
    line(left, floor, W - right, floor, "axis"),
    line(left, y(1), W - right, y(1), "limit"),
    label(left - 6, y(1) + 4, "bound", "limit-name", "end"),
    label(left, H - 6, "first layer", "tick", "start"),
    label(W - right, H - 6, "last layer", "tick", "end"),
  ];
  for (const layer of worst.values())
    parts.push(
      tipped(
        svg("circle", {
          cx: x(layer.place),
          cy: Number.isFinite(layer.ratio) ? y(layer.ratio) : top,
          r: layer.over ? 4.5 : 2.6,
          class: layer.over ? "point bad" : "point",
          onclick: () => {
            location.hash = layer.link;
          },
        }),
        `${layer.node.slice(0, 80)} (${layer.op}): ${layer.over ? over(layer) : `${percent(layer.ratio)} of its bound`}`,
      ),
    );
  return chart(W, H, "Error over bound along the graph", parts);
}

const largestOf = (values) => [values.reduce((most, value) => Math.max(most, value), 0)];
