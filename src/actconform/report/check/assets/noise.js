// A graph in low precision: of each layer the truth, the noise that its format is expected to make, and what came; agreement over a data set.

const MORE_THAN_NOISE = 3; // times the expected noise: such a row is marked

function noiseOfFormat() {
  const noise = data.noise;
  if (!noise) return null;
  const rows = noise.rows.map(([place, format, magnitude, , expected, , bits, beyond, came]) => ({
    place,
    magnitude,
    expected,
    bits,
    beyond,
    came,
    words: `${place} ${format}`,
    over: came.some((got) => got && number(got[1]) > MORE_THAN_NOISE),
  }));
  const columns = [
    { name: "layer", kind: "wide name", cell: (row) => row.place },
    { name: "truth", kind: "number", cell: (row) => short(row.magnitude) },
    { name: "expected noise", kind: "op number", cell: (row) => short(row.expected) },
    ...noise.columns.map((name, place) => ({
      name: `got: ${name}`,
      kind: "op number",
      cell: (row) => (row.came[place] ? short(row.came[place][0]) : "–"),
    })),
    { name: "bits lost", kind: "number roomy", cell: (row) => (number(row.bits) > 0.05 ? short(row.bits) : "") },
    { name: "beyond range", kind: "number roomy", cell: (row) => row.beyond || "" },
  ];
  return element(
    "section",
    { id: "noise" },
    element("h2", null, `Noise of ${noise.format}`),
    element(
      "p",
      { class: "quiet" },
      `Root mean squares. Truth: ${noise.truth}. Expected noise: what rounding in the format leaves of it. Got: the error that came.`,
    ),
    element(
      "ul",
      null,
      noise.summary.map((words) => element("li", null, words)),
    ),
    searched(`Noise of ${noise.format}, layer by layer`, "search layers of the format", columns, rows),
  );
}

function agreementOverData() {
  if (!data.agreement.length) return null;
  return element(
    "section",
    { id: "agreement" },
    element("h2", null, "Agreement over the data set"),
    element(
      "ul",
      null,
      data.agreement.map((words) => element("li", null, words.trim())),
    ),
  );
}
