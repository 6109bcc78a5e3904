// Elements are made of text and properties only: nothing here parses markup.

const byId = (id) => document.getElementById(id);

function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && typeof value !== "string") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const spoken = (text) => el("span", { class: "sr" }, text);

// A label around its control, with the choices as [value, text].
function choice(label, options, value, onchange) {
  const select = el(
    "select",
    { onchange: () => onchange(select.value) },
    options.map(([key, text]) =>
      el("option", { value: String(key), selected: key === value }, text),
    ),
  );
  return el("label", { class: "choice" }, el("span", {}, label), select);
}

function check(label, checked, onchange) {
  const box = el("input", { type: "checkbox", checked, onchange: () => onchange(box.checked) });
  return el("label", { class: "check" }, box, el("span", {}, label));
}

function link(text, url) {
  if (!/^https?:\/\//i.test(url)) return text;
  return el("a", { href: url, rel: "noopener noreferrer nofollow" }, text);
}

// A table of texts; what is no string is an element already.
function grid(caption, heads, rows, { rowHead = true } = {}) {
  const cell = (value, at) =>
    at === 0 && rowHead ? el("th", { scope: "row" }, value) : el("td", {}, value);
  const table = el(
    "table",
    {},
    el("caption", {}, caption),
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        heads.map((head) => el("th", { scope: "col" }, head)),
      ),
    ),
    el(
      "tbody",
      {},
      rows.map((row) => el("tr", {}, row.map(cell))),
    ),
  );
  return el("div", { class: "box", role: "region", "aria-label": caption, tabindex: "0" }, table);
}

// The numbers of a plot, for who cannot or would not see it.
function alternative(caption, heads, rows) {
  const details = el("details", { class: "alternative" }, el("summary", {}, "The same as a table"));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1)
      details.append(grid(caption, heads, rows()));
  });
  return details;
}
