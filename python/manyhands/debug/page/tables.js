// Tables whose rows stay what they are while their figures change, so that a button is where it was when it is clicked.
//
// Everything that comes from the program becomes text (textContent), never markup.

// Show `items` in the body of a table. A column is a function of an item that returns a text, null or an element's
// description, see `fill`; `key` tells one item from another.
export function showRows(body, items, key, columns, decorate = () => {}) {
  const labels = [...body.parentElement.tHead.rows[0].cells].map((cell) => [cell.textContent, cell.className]);
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let previous = null;
  for (const item of items) {
    const name = String(key(item));
    let row = old.get(name);
    old.delete(name);
    if (!row) {
      row = document.createElement("tr");
      row.dataset.key = name;
      for (const [label, kind] of labels) {
        const cell = row.insertCell();
        cell.dataset.label = label;
        cell.className = kind;
      }
    }
    columns.forEach((column, index) => fill(row.cells[index], column(item)));
    decorate(row, item);
    const after = previous ? previous.nextElementSibling : body.firstElementChild;
    if (after !== row) body.insertBefore(row, after);
    previous = row;
  }
  for (const row of old.values()) row.remove();
}

// Fill a cell with a text, or with {tag, ...properties}; nested texts are `under`.
function fill(cell, content) {
  const description = content !== null && typeof content === "object" ? content : { tag: "span", text: content ?? "" };
  let inner = cell.firstElementChild;
  if (!inner || inner.localName !== description.tag) {
    inner = document.createElement(description.tag);
    cell.replaceChildren(inner);
  }
  if (description.text !== undefined) setText(inner, String(description.text));
  if (description.kind !== undefined) inner.className = description.kind;
  if (description.title !== undefined) inner.title = description.title;
  if (description.tag === "progress") {
    inner.max = description.max;
    inner.value = description.value;
  }
  if (description.tag === "button") {
    inner.type = "button";
    inner.onclick = description.onclick;
    inner.disabled = description.disabled;
  }
  let under = cell.querySelector(":scope > .under");
  if (description.under) {
    if (!under) {
      under = document.createElement("span");
      under.className = "under";
      cell.append(under);
    }
    setText(under, String(description.under));
  } else if (under) {
    under.remove();
  }
  cell.classList.toggle("nothing", inner.localName === "span" && inner.textContent === "" && !description.under);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
