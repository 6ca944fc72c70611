document.querySelectorAll("thead button").forEach(button => button.addEventListener("click", () => {
  const th = button.parentElement, body = th.closest("table").tBodies[0];
  const up = th.getAttribute("aria-sort") !== "ascending";
  th.parentElement.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  th.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => {
    const text = row.cells[th.cellIndex].dataset.sort;
    return text === "inf" ? Infinity : text !== "" && !isNaN(text) ? Number(text) : text;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number"
    ? (a < b ? -1 : a > b ? 1 : 0) : String(a).localeCompare(String(b));
  [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(value(a), value(b)))
    .forEach(row => body.append(row));
}));
