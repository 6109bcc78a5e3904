// All that is known of one row, in a dialog.

function openPanel(view, row) {
  const { block } = view;
  const panel = byId("panel");
  const known = part(row.known) ?? {};
  const badges = [row.baseline ? "baseline" : null, conformance(row), attested(row)].filter(
    Boolean,
  );
  const parts = [
    el(
      "header",
      {},
      el(
        "div",
        {},
        el("p", { class: "eyebrow" }, block.title),
        el("h2", { id: "panel-title" }, row.label),
        el(
          "ul",
          { class: "facts" },
          badges.map((badge) => el("li", {}, badge)),
        ),
      ),
      el("button", { type: "button", class: "plain", onclick: () => panel.close() }, "Close"),
    ),
    remarksOf(row),
    commandOf(row),
    scoresOf(block, row),
    comparisonsOf(block, row),
    cellsOf(block, row),
    spentOf(row),
    ...["Hyperparameters", "Recipe", "Identity", "Components", "Environment"]
      .filter((name) => known[name] !== undefined && Object.hasOwn(known, name))
      .map((name) => chapter(name, name !== "Hyperparameters", tree(known[name]))),
    row.known ? null : el("p", { class: "muted" }, "Nothing was recorded of how it was made."),
  ];
  panel.replaceChildren(...parts.filter((each) => each !== null));
  panel.showModal();
  panel.scrollTop = 0;
}

function chapter(title, closed, ...children) {
  return el(
    "details",
    { class: "chapter", open: !closed },
    el("summary", {}, el("h3", {}, title)),
    children,
  );
}

function remarksOf(row) {
  if (!row.remarks.length) return null;
  return chapter(
    "Failures and warnings",
    false,
    el(
      "ul",
      { class: "remarks" },
      row.remarks.map((text) => el("li", {}, text)),
    ),
  );
}

function commandOf(row) {
  if (!row.command) return null;
  const said = el("span", { role: "status", class: "muted" });
  const code = el("code", { tabindex: "0" }, row.command);
  const button = el(
    "button",
    { type: "button", class: "plain", onclick: () => copy(code, said) },
    "Copy",
  );
  return chapter(
    "To reproduce",
    false,
    el("div", { class: "command" }, el("pre", {}, code), button, said),
  );
}

// Where the clipboard is closed to pages from files, the text is selected to be copied by hand.
async function copy(node, said) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    said.textContent = "copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    said.textContent = "selected; press Ctrl+C";
  }
}

// ---- numbers ----

function scoresOf(block, row) {
  const lines = (columns) => columns.map((column) => scoreLine(block, column, row)).filter(Boolean);
  const heads = ["protocol and metric", "mean", `${100 * board.level} % t interval`, "rank", "n"];
  heads.push(...block.seeds.map((seed) => `seed ${seed}`));
  const main = lines(block.columns.filter((column) => column.narrow));
  const rest = block.columns.filter((column) => !column.narrow);
  const more = el(
    "details",
    { class: "alternative" },
    el("summary", {}, `${plural(rest.length, "more metric")}`),
  );
  more.addEventListener("toggle", () => {
    if (more.open && more.childElementCount === 1)
      more.append(grid("Further scores", heads, lines(rest)));
  });
  return chapter(
    "Scores at full precision",
    false,
    grid("Scores", heads, main),
    rest.length ? more : null,
  );
}

const titleOf = (column) => [protocolName(column.protocol), " ", column.label];

function scoreLine(block, column, row) {
  const score = block.score(column, row);
  if (score.mean === null && !score.gaps.some(Boolean)) return null;
  const number = (value) => (value === null ? "–" : String(value));
  return [
    titleOf(column),
    score.mean === null ? lacking(score) : number(score.mean),
    score.mean === null ? "–" : ends(score),
    ranked(score) || "–",
    String(score.n),
    ...score.values.map((value, at) => (value === null ? (score.gaps[at] ?? "–") : number(value))),
  ];
}

function comparisonsOf(block, row) {
  const line = (name, column, pair) => {
    if (!pair) return null;
    const of = (value) => difference(value, column.unit);
    const between =
      pair.half === null ? "–" : `${of(pair.mean - pair.half)} to ${of(pair.mean + pair.half)}`;
    return [titleOf(column), name, of(pair.mean), between, p(pair.p)];
  };
  const lines = block.ranking
    .flatMap((column) => [
      line("the best mean", column, block.behind(column, row)),
      ...block.against.map(([label, pairs]) => line(label, column, pairs(column, row))),
    ])
    .filter(Boolean);
  if (!lines.length) return null;
  const heads = [
    "protocol and metric",
    "minus",
    "difference",
    `${100 * board.level} % interval`,
    "p",
  ];
  return chapter(
    "Paired differences, seed by seed",
    true,
    grid("Paired differences in percentage points, or the column's unit", heads, lines),
  );
}

function cellsOf(block, row) {
  const lines = block.seeds
    .map((seed, at) => [String(seed), row.cells[at]])
    .filter(([, id]) => id)
    .map(([seed, id]) => [seed, el("code", {}, digestOf(id))]);
  return chapter("Seeds and cells", false, grid("Cell of each seed", ["seed", "cell id"], lines));
}

function spentOf(row) {
  const lines = COSTS.map(([label, format], at) => [
    label,
    format(row.costs[at]),
    String(row.costs[at] ?? "–"),
  ]);
  const stages = Object.entries(row.stages).map(([name, seconds]) => [
    `stage ${name}`,
    `${seconds} s`,
    "",
  ]);
  const health = Object.entries(row.measured).map(([name, value]) => [name, String(value)]);
  return chapter(
    "Cost and health",
    true,
    grid("Cost, mean over seeds", ["cost", "", "exactly"], [...lines, ...stages]),
    health.length ? grid("Health of the fit, mean over seeds", ["measure", "value"], health) : null,
  );
}

// ---- nested data ----

function tree(reference) {
  const value = part(reference);
  if (value === null || typeof value !== "object")
    return el("span", { class: "leaf" }, String(value));
  const entries = Object.entries(value);
  if (!entries.length) return el("span", { class: "leaf" }, "none");
  if (Array.isArray(value) && value.every((item) => part(item) === item)) {
    return el("span", { class: "leaf" }, value.map(String).join(", "));
  }
  return el(
    "dl",
    { class: "tree" },
    entries.map(([key, item]) => [el("dt", {}, key), el("dd", {}, tree(item))]),
  );
}
