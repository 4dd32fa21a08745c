// Axes and tooltips that all charts share.

const tip = document.getElementById("tip");

/** Give marks of a chart their tooltip: shown on hover and on focus, the same words as their accessible name. */
function tipped(element, words) {
  element.setAttribute("data-tip", words);
  element.append(draw("title", null, words));
  return element;
}

function showTip(event) {
  const mark = event.target.closest && event.target.closest("[data-tip]");
  if (!mark) {
    tip.hidden = true;
    return;
  }
  tip.textContent = mark.getAttribute("data-tip");
  tip.hidden = false;
  const box = mark.getBoundingClientRect(),
    own = tip.getBoundingClientRect();
  const left = Math.max(4, Math.min(box.left + box.width / 2 - own.width / 2, innerWidth - own.width - 4));
  const above = box.top - own.height - 6;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : box.bottom + 6) + scrollY}px`;
}

/** An SVG of a given size in its own units that grows and shrinks with the page, and says what it shows. */
function chart(width, height, label, ...children) {
  const svg = draw(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label },
    children,
  );
  return make("div", { class: "scroll chart-box", tabindex: "0", role: "region", "aria-label": label }, svg);
}

const line = (x1, y1, x2, y2, kind) => draw("line", { x1, y1, x2, y2, class: kind });
const label = (x, y, words, kind, anchor) =>
  draw("text", { x, y, class: kind, "text-anchor": anchor || "middle" }, words);

/** A logarithmic scale of shares from `low` to `high` onto pixels; 0 and what is below `low` lie on the floor. */
function logScale(low, high, floor, top) {
  const span = Math.log10(high) - Math.log10(low);
  return (value) => {
    if (!(value > low)) return floor;
    return floor - ((Math.min(Math.log10(value), Math.log10(high)) - Math.log10(low)) / span) * (floor - top);
  };
}

/** The decades between two powers of ten, thinned to at most `most`. */
function decades(low, high, most) {
  const first = Math.round(Math.log10(low)),
    last = Math.round(Math.log10(high));
  const step = Math.max(1, Math.ceil((last - first) / most));
  const ticks = [];
  for (let power = Math.ceil(first / step) * step; power <= last; power += step) ticks.push(power);
  return ticks;
}

function power(exponent) {
  if (exponent >= -3 && exponent <= 3) return String(Number((10 ** exponent).toPrecision(1)));
  return `1e${exponent}`;
}
