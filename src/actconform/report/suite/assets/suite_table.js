// Tables that are sorted by any column: those of operators, and of cases.

const value = (of, row) => (typeof of(row) === "string" && ["inf", "-inf", "nan"].includes(of(row)) ? number(of(row)) : of(row));

/** Compare two rows by a column; what has no number stands last either way. */
function comparedBy(column, down) {
  const sign = down ? -1 : 1;
  return (a, b) => {
    const [first, second] = [value(column.of, a), value(column.of, b)];
    if (typeof first === "string") return sign * first.localeCompare(second) || a.place - b.place;
    if (Number.isNaN(first) !== Number.isNaN(second)) return Number.isNaN(first) ? 1 : -1;
    return first === second || Number.isNaN(first) ? a.place - b.place : sign * (first < second ? -1 : 1);
  };
}

/** A box with a table of `columns` ({name, of, number, kind, cell}) that redraws itself when a head is chosen; `rows` gives its rows. */
function sortedTable(caption, columns, rows, markOf) {
  const order = { column: null, down: false };
  const box = element("div", { class: "suite-box", tabindex: "0", role: "region", "aria-label": caption });

  function head(column, at) {
    const sorted = order.column === at ? (order.down ? "descending" : "ascending") : null;
    const choose = () => {
      Object.assign(order, { column: at, down: order.column === at ? !order.down : Boolean(column.number) });
      draw();
      box.querySelectorAll("thead button")[at].focus();
    };
    return element("th", { scope: "col", class: column.number && "number", "aria-sort": sorted }, element("button", { type: "button", onclick: choose }, column.name));
  }

  function draw() {
    const listed = rows();
    const sorted = order.column === null ? listed : [...listed].sort(comparedBy(columns[order.column], order.down));
    const body = sorted.map((row) =>
      element(
        "tr",
        { class: markOf(row) },
        columns.map((column) => element("td", { class: column.kind || (column.number && "number") }, String((column.cell || column.of)(row)))),
      ),
    );
    box.replaceChildren(
      element(
        "table",
        { class: "plain suite" },
        element("caption", { class: "unseen" }, caption),
        element("thead", null, element("tr", null, columns.map(head))),
        element("tbody", null, body),
      ),
    );
    return listed.length;
  }
  return { box, draw };
}
