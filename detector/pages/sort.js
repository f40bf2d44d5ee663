"use strict";
// A click on a heading (or Enter or Space) of a table of class "sortable" sorts by its column; a second click reverses
// the order. Cells are compared by data-value if they have one, and as numbers if both are numbers. Empty cells always
// stand last.
function keyOf(row, column) {
  const cell = row.cells[column];
  const text = (cell.dataset.value ?? cell.textContent).trim();
  const number = Number(text);
  return { text, empty: text === "" || text === "–", number: text !== "" && !Number.isNaN(number) ? number : null };
}

function compare(a, b) {
  if (a.number !== null && b.number !== null) return a.number - b.number;
  return a.text.localeCompare(b.text, undefined, { numeric: true, sensitivity: "base" });
}

function sortBy(table, headings, column) {
  const down = headings[column].getAttribute("aria-sort") === "ascending";
  for (const heading of headings) heading.removeAttribute("aria-sort");
  headings[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: keyOf(row, column) }));
  rows.sort((a, b) => a.key.empty - b.key.empty || (a.key.empty ? 0 : (down ? -1 : 1) * compare(a.key, b.key)));
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headings.forEach((heading, column) => {
    if (heading.textContent.trim() === "") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, headings, column));
  });
}
