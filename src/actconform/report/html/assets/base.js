// The cases of a run, their words and numbers.

const CLEAN = 0,
  BY_CONVENTION = 1,
  KNOWN = 2,
  NEW = 3,
  BROKEN = 4,
  REFUSED = 5,
  NOT_RUN = 6;
const CLASS_NAMES = Object.keys(data.classes); // gravest first
const SEVERITIES = data.severities.map(([name]) => name); // gravest first
const MARKS = ["", data.severities.at(-1)[1], "▲", "●", "✗", "–", "?"]; // by state
const GRAVITY = [0, 1, 3, 4, 5, -1, -2]; // by state: which of several in a cell is shown

const cases = data.cases.map((raw, place) => {
  const [subject, aspect, dtype, route, verdict] = raw.i.map(text);
  return {
    place,
    subject,
    aspect,
    dtype,
    route,
    verdict,
    state: raw.k,
    word: text(raw.c),
    gravity: raw.g, // of its gravest finding, 0 is critical; behind all where it has none
    severity: SEVERITIES[raw.g] || "",
    raw,
    errorRatio: number(raw.w),
    within: number(raw.p),
    id: `${subject}/${aspect}/${dtype}/${route}`,
    backend: route.split("+").pop(),
  };
});
const byId = new Map(cases.map((result) => [result.id, result]));

/** The sign of a state; of what is known, that of its severity. */
const markOf = (state, gravity) => (state === KNOWN && data.severities[gravity] ? data.severities[gravity][1] : MARKS[state]);

/** How cases, and cells of several, are sorted: gravest first. */
const gravestFirst = (a, b) =>
  GRAVITY[b.state] - GRAVITY[a.state] || a.gravity - b.gravity || (b.errorRatio ?? 0) - (a.errorRatio ?? 0);

/** The number behind a pattern of bits such as 0x42b17218. */
function ofHex(pattern, dtype) {
  const bits = parseInt(pattern, 16);
  if (dtype !== "f16") {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, dtype === "bf16" ? bits * 65536 : bits);
    return view.getFloat32(0);
  }
  const sign = bits & 0x8000 ? -1 : 1,
    exponent = (bits >> 10) & 31,
    fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

function decimal(pattern, dtype) {
  const value = ofHex(pattern, dtype);
  if (!Number.isFinite(value) || value === 0)
    return Object.is(value, -0) ? "-0" : String(value).replace("Infinity", "inf");
  return String(Number(value.toPrecision(data.digits[dtype] || 9)));
}

const coded = (key) => encodeURI(key).replaceAll("#", "%23").replaceAll("&", "%26");
const linkTo = (result) => `#case=${coded(result.id)}`;
