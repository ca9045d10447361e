// A table that sorts by the buttons in its head and shows the rows that a filter lets through.
"use strict";

// Fills the table `id`. columns: [{title, value(row), cell(row), numeric, live}]; value is what is sorted by, cell what
// is shown if it is not the value itself; live cells are made anew by refresh. Gives {refresh, filter, shown}.
function table(id, columns, rows) {
  const whole = document.getElementById(id);
  const body = element("tbody");
  const cells = (row, column) => element("td", { className: column.numeric ? "number" : "" }, ...content(row, column));
  const content = (row, column) => [column.cell ? column.cell(row) : column.value(row)].flat();
  const lines = rows.map((row) => ({ row, line: element("tr", {}, ...columns.map((column) => cells(row, column))) }));
  let order = [...lines];

  const head = columns.map((column, i) => {
    if (!column.value) return element("th", { scope: "col" }, column.title);
    const button = element("button", { type: "button" }, column.title);
    const cell = element("th", { scope: "col", "aria-sort": "none" }, button);
    button.addEventListener("click", () => sort(i, cell.getAttribute("aria-sort") === (column.numeric ? "descending" : "ascending")));
    return cell;
  });
  whole.append(element("thead", {}, element("tr", {}, ...head)), body);

  // By a column; the other way round if `turned`, which is downwards but for numbers.
  function sort(i, turned = false) {
    const { value, numeric } = columns[i];
    const sign = turned !== Boolean(numeric) ? -1 : 1;
    const compare = numeric ? (a, b) => a - b : new Intl.Collator(locale, { numeric: true }).compare;
    order = [...lines].sort((a, b) => sign * compare(value(a.row), value(b.row)));
    head.forEach((cell, j) => columns[j].value && cell.setAttribute("aria-sort", j !== i ? "none" : sign > 0 ? "ascending" : "descending"));
    body.append(...order.map(({ line }) => line));
  }

  // Makes the live cells of rows anew: of those that changed.
  function refresh(changed = () => true) {
    for (const { row, line } of lines) {
      if (changed(row)) columns.forEach((column, i) => column.live && line.cells[i].replaceChildren(...content(row, column)));
    }
  }

  function filter(test) {
    for (const { row, line } of lines) line.hidden = !test(row);
  }

  body.append(...lines.map(({ line }) => line));
  return {
    refresh,
    sort,
    filter,
    shown: () => order.filter(({ line }) => !line.hidden).map(({ row }) => row),
  };
}
