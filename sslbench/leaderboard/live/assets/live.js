// Asks for the state every two seconds, and draws again what has changed.

const EVERY = 2000;
const STATES = ["done", "to judge", "running", "perhaps", "stopped", "missing", "failed", "skipped"];
const MEANT = {
  done: "trained and judged",
  "to judge": "trained, still to be judged",
  running: "a process of this machine works on it",
  perhaps:
    "written to in the last two minutes, by no process of this machine: another machine works on " +
    "it, or it was just killed",
  stopped: "begun, and nobody works on it; the same run goes on from its checkpoint",
  missing: "not begun",
  failed: "tried, and failed",
  skipped: "the method does not support these settings",
};
const kind = (state) => `s-${state.replace(" ", "-")}`;
const drawnParts = new Map(); // part of the state -> what of it was drawn last

function show(state) {
  document.title = `${state.counts.done ?? 0}/${state.total} · ${state.suite}`;
  byId("suite").textContent = state.suite;
  byId("summary").textContent = state.summary;
  byId("store").textContent = `store ${state.store} · as of ${state.at.slice(11, 19)}`;
  once("progress", [state.counts, state.total, state.to_go, state.at_work, state.waiting], () =>
    showProgress(state),
  );
  once("trouble", state.trouble, (lines) =>
    byId("trouble").replaceChildren(...lines.map((line) => el("li", {}, line))),
  );
  once("now", state.now, showNow);
  once("matrix", state.matrix, showMatrix);
  once("legend", Object.keys(state.counts).sort(), showLegend);
  once("curves", state.curves, showCurves);
  once("tables", [state.tables, state.caption], () => showTables(state));
  once("verdicts", state.verdicts, showVerdicts);
  once("failed", state.failed, showFailed);
}

// Draws a part where it has changed, so that what is read, chosen or scrolled stays.
function once(name, part, draw) {
  const text = JSON.stringify(part);
  if (drawnParts.get(name) === text) return;
  drawnParts.set(name, text);
  draw(part);
}

// ---- progress --------------------------------------------------------------------------------

function showProgress({ counts, total, to_go: toGo, at_work: atWork, waiting }) {
  const known = STATES.filter((state) => counts[state]);
  byId("bar").replaceChildren(
    ...known.map((state) => {
      const part = el("i", { class: kind(state) });
      part.style.flexGrow = counts[state];
      return part;
    }),
  );
  const parts = [`${counts.done ?? 0} of ${total} cells done`];
  for (const state of known) if (state !== "done") parts.push(`${counts[state]} ${state}`);
  if (waiting) parts.push(`${waiting} whose settings the trials choose`);
  const open = total - (counts.done ?? 0) - (counts.failed ?? 0) - (counts.skipped ?? 0);
  if (open === 0) parts.push("nothing to go");
  else if (!atWork) parts.push("nobody works on it");
  else parts.push(toGo === null ? "time to go not known yet" : `about ${duration(toGo)} to go`);
  byId("counts").textContent = parts.join(" · ");
}

function showNow(cells) {
  byId("at-work").hidden = cells.length === 0;
  byId("now").replaceChildren(...cells.map(card));
}

function card(cell) {
  const facts = [cell.doing];
  if (cell.loss !== null) facts.push(`loss ${brief(cell.loss)}`);
  if (cell.speed !== null) facts.push(`${Math.round(cell.speed).toLocaleString("en")} images/s`);
  if (cell.left !== null) facts.push(`about ${duration(cell.left)} left`);
  if (cell.state === "perhaps") facts.push(`last written to ${duration(cell.age)} ago, not here`);
  const bar = el("i", { class: kind(cell.state) });
  bar.style.width = `${100 * cell.share}%`;
  return el(
    "article",
    { class: "card" },
    el("h3", {}, cell.title),
    el("div", { class: "bar", "aria-hidden": "true" }, bar),
    el("p", {}, facts.join(" · ")),
  );
}

function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.round(hours / 24)} days`;
}

// ---- the matrix ------------------------------------------------------------------------------

function showMatrix({ groups, rows }) {
  const heads = [
    el(
      "tr",
      {},
      el("th", { scope: "col", rowspan: 2 }, "method"),
      groups.map(([group, own]) => el("th", { scope: "colgroup", colspan: own.length }, group)),
    ),
    el(
      "tr",
      {},
      groups.flatMap(([, own]) => own.map((head) => el("th", { scope: "col" }, head))),
    ),
  ];
  const body = rows.map(([label, slots]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, label),
      slots.map((cells) => el("td", {}, cells.map(chip))),
    ),
  );
  byId("matrix").replaceChildren(
    el("table", { class: "matrix" }, el("thead", {}, heads), el("tbody", {}, body)),
  );
}

function chip({ state, share, said: text, title }) {
  const node = el("span", { class: `chip ${kind(state)}`, title: `${state}: ${title}` });
  if (state === "running" || state === "perhaps" || state === "stopped") {
    const fill = el("i", { "aria-hidden": "true" });
    fill.style.width = `${100 * share}%`;
    node.append(fill, spoken(`${state} `));
  }
  node.append(el("span", {}, text));
  return node;
}

function showLegend(known) {
  byId("legend").replaceChildren(
    ...STATES.filter((state) => known.includes(state)).map((state) =>
      el("li", {}, el("i", { class: kind(state) }), el("b", {}, state), ` ${MEANT[state]}`),
    ),
  );
}

// ---- tables and sentences --------------------------------------------------------------------

function showTables({ tables, caption }) {
  byId("table").hidden = tables.length === 0;
  byId("caption").textContent = caption;
  byId("tables").replaceChildren(
    ...tables.flatMap(({ title, heads, rows, baselines, findings }) => {
      const box = grid(title, heads, rows);
      const lines = [...box.querySelectorAll("tbody tr")];
      for (const line of baselines ? lines.slice(-baselines) : []) line.className = "ref";
      return [box, el("ul", { class: "notes" }, findings.map((text) => el("li", {}, text)))];
    }),
  );
}

function showVerdicts(rows) {
  byId("verdicts").hidden = rows.length === 0;
  byId("remarks").replaceChildren(
    ...rows.flatMap(({ label, codes, lines }) => [
      el("dt", {}, label, codes.length ? el("span", { class: "bad" }, ` ${codes.join(" ")}`) : ""),
      el("dd", {}, lines.map((line) => el("p", {}, line))),
    ]),
  );
}

function showFailed(cells) {
  byId("failures").hidden = cells.length === 0;
  byId("failed").replaceChildren(
    ...cells.flatMap(({ title, why }) => [el("dt", {}, title), el("dd", {}, why)]),
  );
}

// ---- ask -------------------------------------------------------------------------------------

async function ask() {
  try {
    const answer = await fetch("state.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    show(await answer.json());
    byId("lost").hidden = true;
  } catch {
    byId("lost").textContent =
      "sslbench watch does not answer: it was ended, or is busy. What is shown is as old as it says.";
    byId("lost").hidden = false;
  }
  setTimeout(ask, EVERY);
}

document.documentElement.classList.add("scripted");
ask();
