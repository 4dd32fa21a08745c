// Axes and tooltips that all charts share.

const tip = document.getElementById("tip");

/** Give a mark of a chart its tooltip, shown on hover and on focus; it is the accessible name too. */
function tipped(mark, words) {
  mark.setAttribute("data-tip", words);
  mark.append(svg("title", null, words));
  return mark;
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
    tipBox = tip.getBoundingClientRect();
  const left = Math.max(4, Math.min(box.left + box.width / 2 - tipBox.width / 2, innerWidth - tipBox.width - 4));
  const above = box.top - tipBox.height - 6;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : box.bottom + 6) + scrollY}px`;
}

/** An SVG of a given size in its own units that scales with the page, with an accessible name. */
function chart(width, height, label, ...children) {
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label },
    children,
  );
  return element("div", { class: "scroll chart-box", tabindex: "0", role: "region", "aria-label": label }, drawing);
}

const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });
const label = (x, y, words, kind, anchor) =>
  svg("text", { x, y, class: kind, "text-anchor": anchor || "middle" }, words);

/** A logarithmic scale of values from `low` to `high` onto pixels; values below `low` lie on the floor. */
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

addEventListener("mouseover", showTip);
addEventListener("focusin", showTip);
addEventListener("focusout", () => {
  tip.hidden = true;
});
