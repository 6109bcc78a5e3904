// Wiring: the chosen table, its filters, the sections below it, colours, and paper.

const views = board.blocks.map(() => null);
const viewAt = (at) => (views[at] ??= newView(board.blocks[at]));
let current = 0;
const view = () => viewAt(current);

// ---- the table ----

function showTable() {
  const rows = rowsOf(view());
  const focused = document.activeElement;
  const within = focused && byId("tables").contains(focused) ? focused.dataset : null;
  const old = byId("tables").querySelector(".box");
  const box = boxed(view(), tableOf(view(), { rows, published: !view().query }));
  const [left, top] = [old?.scrollLeft ?? 0, old?.scrollTop ?? 0];
  byId("tables").replaceChildren(
    box,
    findingsOf(view().block),
    ...(rows.length ? [] : [el("p", { class: "muted" }, "No row passes the filters.")]),
  );
  box.scrollLeft = left;
  box.scrollTop = top;
  if (within?.key) box.querySelector(`[data-key="${CSS.escape(within.key)}"]`)?.focus();
  const field = fieldOf(view(), view().sort.key);
  const { best } = view().sort;
  const order = field.column
    ? `${best ? "best" : "worst"} first`
    : field.up === best
      ? "falling"
      : "rising";
  const by = `${field.group ? `${field.group} ` : ""}${field.label}`;
  const text = `${rows.length} of ${plural(view().block.rows.length, "row")}, by ${by}, ${order}`;
  if (byId("status").textContent !== text) byId("status").textContent = text;
  plotsStale();
}

const findingsOf = (block) =>
  el(
    "ul",
    { class: "notes" },
    block.findings.map((text) => el("li", {}, text)),
  );

byId("tables").addEventListener("click", (event) => {
  const sort = event.target.closest("button.sort");
  if (sort) {
    const { key: chosen } = sort.dataset;
    view().sort = { key: chosen, best: view().sort.key === chosen ? !view().sort.best : true };
    showTable();
  }
  const name = event.target.closest("button.name");
  if (name) openPanel(view(), view().block.rows[Number(name.dataset.row)]);
});

function showControls() {
  const now = view();
  const query = el("input", {
    type: "search",
    placeholder: "method or warning",
    oninput: () => ((now.query = query.value), showTable()),
  });
  query.value = now.query;
  byId("controls").replaceChildren(
    ...(board.blocks.length > 1
      ? [
          choice(
            "Table",
            board.blocks.map((block, at) => [String(at), block.title]),
            String(current),
            (at) => choose(Number(at)),
          ),
        ]
      : []),
    el("label", { class: "choice" }, el("span", {}, "Filter"), query),
    check("Baselines", now.baselines, (on) => ((now.baselines = on), showTable())),
    check("Only healthy", now.healthy, (on) => ((now.healthy = on), showTable())),
    columnChooser(now, showTable),
  );
}

function choose(at) {
  current = at;
  showControls();
  showTable();
  showSections();
  byId("controls").querySelector("select")?.focus();
}

// ---- the sections below ----

const sections = [
  costSection(byId("cost")),
  heatSection(byId("corruption")),
  curvesSection(byId("curves")),
  agreementSection(byId("agreement")),
  overallSection(byId("overall")),
];
const stale = new Set();
const near = new Set();

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) near.add(target);
      else near.delete(target);
    }
    drawStale();
  },
  { rootMargin: "200px" },
);

function plotsStale() {
  for (const each of sections) stale.add(each);
  drawStale();
}

function drawStale(all = false) {
  for (const each of stale) {
    if (each.section.hidden || !(all || near.has(each.section))) continue;
    stale.delete(each);
    each.draw(view());
  }
}

function showSections() {
  for (const each of sections) each.section.hidden = !each.worth(view());
  const found = [...document.querySelectorAll("main > section:not([hidden])")];
  byId("sections").replaceChildren(
    ...found.map((section) =>
      el("li", {}, el("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)),
    ),
  );
}

// what lies above a section must have its height before the page jumps there
byId("sections").addEventListener("click", () => drawStale(true));

let resized = 0;
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone's address bar came or went
  width = innerWidth;
  clearTimeout(resized);
  resized = setTimeout(plotsStale, 150);
});
addEventListener("scroll", () => (byId("tip").hidden = true), { passive: true });

// ---- colours ----

const THEMES = ["system", "light", "dark"];

// Pages from files may have no storage: then the choice lasts as long as the page.
function stored(value) {
  try {
    if (value !== undefined) localStorage.setItem("sslbench-colours", value);
    return localStorage.getItem("sslbench-colours");
  } catch {
    return null;
  }
}

function colour(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Colours: ${theme}`;
  byId("theme").setAttribute("aria-label", `Colours: ${theme}`);
}

let theme = THEMES.includes(stored()) ? stored() : "system";
colour(theme);
byId("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  stored(theme);
  colour(theme);
});

// ---- dialog and paper ----

byId("panel").addEventListener("click", (event) => {
  if (event.target === byId("panel")) byId("panel").close(); // its backdrop
});

addEventListener("beforeprint", () => {
  drawStale(true);
  const tables = board.blocks.flatMap((_, at) => printedTables(viewAt(at)));
  byId("tables").append(el("div", { class: "paper" }, tables));
});
addEventListener("afterprint", () => document.querySelector(".paper")?.remove());

// ---- begin ----

document.documentElement.classList.add("scripted");
if (board.blocks.length) {
  showSections();
  showControls();
  showTable();
  for (const each of sections) watcher.observe(each.section);
}
