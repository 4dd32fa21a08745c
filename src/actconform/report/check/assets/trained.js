// The model as it was trained: its layers beside the graph's nodes, and what became of its weights.

/** A searchable long table of rows that have `words` to be searched in. */
function searched(caption, placeholder, columns, rows) {
  const list = longTable(caption, columns);
  const search = element("input", {
    type: "search",
    placeholder,
    "aria-label": `${placeholder}, ${caption}`,
    oninput: () => list.show(rows.filter((row) => has(row.words, search.value))),
  });
  requestAnimationFrame(() => list.show(rows));
  return [element("div", { class: "controls" }, element("label", { class: "grow" }, search)), list.box];
}

function trainedLayers(trained) {
  const rows = trained.layers.map(([layer, kind, node, tensor, by]) => ({ layer: text(layer), kind: text(kind), node: text(node), tensor: text(tensor), by: text(by) }));
  for (const row of rows) row.words = Object.values(row).join(" ");
  return searched(
    `Layers of ${trained.source} in the graph`,
    "search layers of the trained model",
    [
      { name: "trained layer", kind: "wide name", cell: (row) => row.layer || "(the model)" },
      { name: "kind", kind: "roomy op", cell: (row) => row.kind },
      { name: "node of the graph", kind: "wide name", cell: (row) => row.node || "–" },
      { name: "shown by", kind: "op", cell: (row) => row.by },
    ],
    rows,
  );
}

function trainedWeights(trained) {
  const rows = trained.weights.map(([weight, state, words, constants, exact]) => ({
    weight: text(weight),
    state: text(state),
    about: text(words),
    constants: text(constants),
    over: text(state) === "different",
    exact,
  }));
  for (const row of rows) row.words = `${row.weight} ${row.state} ${row.about} ${row.constants}`;
  return searched(
    `Weights of ${trained.source} in the graph`,
    "search trained weights",
    [
      { name: "trained weight", kind: "wide name", cell: (row) => row.weight },
      { name: "state", kind: "op", cell: (row) => row.over ? status(false, row.state) : row.exact ? status(true, row.state) : element("span", { class: "chip" }, row.state) },
      { name: "what became of it", kind: "wide name", cell: (row) => element("span", { "data-tip": row.about }, row.about) },
      { name: "constant of the graph", kind: "roomy op", cell: (row) => row.constants },
    ],
    rows,
  );
}

function trainedModels() {
  if (!data.trained.length) return null;
  return element(
    "section",
    { id: "trained" },
    element("h2", null, "The model as it was trained"),
    data.trained.map((trained) => [
      element("h3", null, `${trained.source} in ${trained.framework}`),
      element("p", { class: "quiet" }, trained.about),
      element(
        "ul",
        null,
        [...trained.layerWords, ...trained.weightWords].map((words) => element("li", null, words)),
      ),
      trained.layers.length ? [element("h4", null, "Layers"), trainedLayers(trained)] : null,
      trained.weights.length ? [element("h4", null, "Weights, bit for bit"), trainedWeights(trained)] : null,
    ]),
  );
}
