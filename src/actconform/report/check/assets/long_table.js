// A table of any number of rows, of which only those in view are in the page.

const OVERSCAN = 12; // rows above and below those in view

/** A long table; `columns` are {name, kind, cell(row)}. Returns {box, show(rows), reveal(row)}; the first link of a row takes the focus. */
function longTable(caption, columns) {
  let rows = [];
  let height = 0;
  let drawn = new Map(); // rows in the page, by place
  const above = spacer(),
    below = spacer(),
    body = element("tbody");
  const head = columns.map((column) => element("th", { scope: "col", class: column.kind }, column.name));
  const inner = element(
    "table",
    { class: "plain long" },
    element("caption", { class: "unseen" }, caption),
    element("thead", null, element("tr", { "aria-rowindex": 1 }, head)),
    above,
    body,
    below,
  );
  const box = element("div", { class: "long-box", tabindex: "0", role: "region", "aria-label": caption }, inner);

  function rowOf(place) {
    const cells = columns.map((column) => element("td", { class: column.kind }, column.cell(rows[place])));
    return element("tr", { "aria-rowindex": place + 2, class: rows[place].over && "over" }, cells);
  }

  function draw() {
    const top = Math.max(0, box.scrollTop - box.querySelector("thead").offsetHeight);
    const first = Math.max(0, Math.floor(top / height) - OVERSCAN);
    const last = Math.min(rows.length, Math.ceil((top + box.clientHeight) / height) + OVERSCAN);
    const fresh = new Map();
    for (let place = first; place < last; place++) fresh.set(place, drawn.get(place) || rowOf(place));
    const going = [...drawn].filter(([place]) => !fresh.has(place)).map(([, row]) => row);
    // a row that goes with the focus would leave it nowhere, and have the browser lay out the table half drawn, and scroll it
    if (going.some((row) => row.contains(document.activeElement))) box.focus({ preventScroll: true });
    for (const row of going) row.remove();
    let next = body.firstChild;
    for (const row of fresh.values()) {
      if (row === next) next = next.nextSibling;
      else body.insertBefore(row, next);
    }
    drawn = fresh;
    above.firstChild.firstChild.style.height = `${first * height}px`;
    below.firstChild.firstChild.style.height = `${(rows.length - last) * height}px`;
  }

  function show(shown) {
    rows = shown;
    drawn = new Map();
    body.replaceChildren();
    inner.setAttribute("aria-rowcount", rows.length + 1);
    height = parseFloat(getComputedStyle(box).getPropertyValue("--row")) || 30;
    box.scrollTop = 0;
    draw();
  }

  /** Bring a row into view; with `focus`, give its link the focus. */
  function reveal(row, focus) {
    const place = rows.indexOf(row);
    if (place < 0) return;
    const room = box.clientHeight - box.querySelector("thead").offsetHeight;
    if (place * height < box.scrollTop) box.scrollTop = place * height;
    if ((place + 1) * height > box.scrollTop + room) box.scrollTop = (place + 1) * height - room;
    draw();
    if (focus) drawn.get(place)?.querySelector("a")?.focus({ preventScroll: true });
  }

  box.addEventListener("scroll", draw, { passive: true });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const focused = event.target.closest("tbody tr");
    if (!step || !focused) return;
    event.preventDefault();
    const place = Number(focused.getAttribute("aria-rowindex")) - 2 + step;
    if (rows[place]) reveal(rows[place], true);
  });
  new ResizeObserver(() => {
    if (!box.isConnected) return;
    const now = parseFloat(getComputedStyle(box).getPropertyValue("--row")) || 30;
    if (now !== height) show(rows);
    else draw();
  }).observe(box);
  return { box, show, reveal };
}

// One cell: a colspan would give columns to a table in which narrow screens hide some.
const spacer = () => element("tbody", { "aria-hidden": "true", class: "spacer" }, element("tr", null, element("td")));
