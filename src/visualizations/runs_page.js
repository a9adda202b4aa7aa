// Sort a table by the column whose heading is pressed; cells without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.firstChild.addEventListener("click", () => {
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.key;
    const order = (a, b) => (key(a) === "") - (key(b) === "")
      || sign * (key(a) - key(b) || key(a).localeCompare(key(b), "en", { numeric: true }));
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}
