// Sorts a table by the column whose header is clicked, or gets Enter or Space.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];

  const text = (row, column) => row.cells[column].textContent.trim();

  // A cell's number: the unrounded one if the cell has it, else the one that its text begins with.
  const number = (row, column) => {
    const exact = row.cells[column].dataset.number;
    return exact === undefined ? parseFloat(text(row, column).replaceAll(",", "")) : Number(exact);
  };

  const isOfNumbers = column =>
    column > 0 && [...body.rows].every(row => text(row, column) === "" || !isNaN(number(row, column)));

  const sort = column => {
    const head = heads[column];
    const numbers = isOfNumbers(column);
    const before = head.getAttribute("aria-sort");
    // The first click sorts numbers from the greatest and texts from A; further clicks reverse.
    const down = before === null ? numbers : before === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      const blanks = (text(a, column) === "") - (text(b, column) === "");
      // Cells without a value are last in both directions.
      if (blanks !== 0) return blanks;
      if (text(a, column) === "") return 0;
      const order = numbers
        ? number(a, column) - number(b, column)
        : text(a, column).localeCompare(text(b, column), "en", { numeric: true });
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort by this column";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
}
