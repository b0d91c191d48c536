"use strict";
// Makes the tables sortable: by their headers, and on a phone by a list above each.
// Without this script the page is complete, in the order of the report.

/** The rows of a table body, each with the rows that continue it. */
function groups(body) {
  const found = [];
  for (const row of body.rows) {
    if (row.classList.contains("continued") && found.length) found.at(-1).push(row);
    else found.push([row]);
  }
  return found;
}

/** What a cell is sorted by: the number or the text shown first; null for none. */
function key(cell, numeric) {
  const text = (cell.querySelector("span") ?? cell).textContent.trim();
  if (["", "–", "n/a"].includes(text)) return null;
  if (!numeric) return text;
  const number = text.replaceAll(",", "").match(/[-−]?\d+(\.\d+)?/);
  return number ? Number(number[0].replace("−", "-")) : null;
}

/** Order of two keys; null comes last in both directions. */
function compare(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  return direction * order;
}

function sortable(table) {
  const body = table.tBodies[0];
  const given = groups(body);
  if (given.length < 2) return;
  const heads = [...table.tHead.rows[0].cells];
  const words = document.body.dataset;

  function sort(column, direction) {
    const numeric = heads[column].classList.contains("num");
    const order = given.map((rows) => ({ rows, key: key(rows[0].cells[column], numeric) }));
    if (direction) order.sort((a, b) => compare(a.key, b.key, direction));
    body.append(...order.flatMap((group) => group.rows));
    heads.forEach((head, i) => {
      const on = direction && i === column;
      head.setAttribute("aria-sort", !on ? "none" : direction > 0 ? "ascending" : "descending");
    });
    select.value = direction ? `${column} ${direction}` : "0 0";
  }

  const select = document.createElement("select");
  select.name = "sort";
  select.add(new Option(words.given, "0 0"));
  heads.forEach((head, column) => {
    const title = head.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    const next = { none: 1, ascending: -1, descending: 0 };
    button.addEventListener("click", () => sort(column, next[head.getAttribute("aria-sort")]));
    select.add(new Option(`${title} ↑`, `${column} 1`));
    select.add(new Option(`${title} ↓`, `${column} -1`));
  });
  select.addEventListener("change", () => sort(...select.value.split(" ").map(Number)));
  const label = document.createElement("label");
  label.className = "sort";
  label.append(`${words.sort} `, select);
  table.parentElement.before(label);
}

document.querySelectorAll("section table").forEach(sortable);
