// What is shown: the fleet, a task, a report. Whatever others wrote is set as text, never as markup.

import { attempts, clockOf, hours, meter, sparkline } from "/static/plots.js";

export function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// -- figures ------------------------------------------------------------------------------------

export const number = (n) => n.toLocaleString("en-US");

export function short(n) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["K", 1e3]]) {
    if (n >= size) return n / size >= 100 ? `${Math.floor(n / size)}${unit}` : `${(Math.floor((n * 10) / size) / 10).toFixed(1)}${unit}`;
  }
  return String(Math.floor(n));
}

export function money(nanos) {
  const places = nanos >= 1e9 || !nanos ? 2 : 4;
  return `$${(nanos / 1e9).toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places })}`;
}

const amount = (unit, value) => (unit === "money" ? money(value) : short(value));

// A limit; of what it is a share, where several buses divide that.
const bound = (row) => `${amount(row.unit, row.limit)}${row.whole ? ` of ${amount(row.unit, row.whole)}` : ""}`;

export function age(micros) {
  const s = Math.max(0, Math.floor(micros / 1e6));
  if (s < 100) return `${s} s`;
  const m = Math.floor(s / 60);
  if (m < 100) return `${m} min`;
  const hour = Math.floor(m / 60);
  return hour < 48 ? `${hour} h ${m % 60} min` : `${Math.floor(hour / 24)} d ${hour % 24} h`;
}

// A plot that is drawn for a broad page has letters nobody can read on a phone.
const narrow = () => innerWidth <= 600;

// In one piece where a line is folded.
const whole = (text) => text.replaceAll(" ", "\u00a0");

// At these levels hardly anything is let through: a rate of before says no more when it is full.
const FULL = ["HARD", "CRITICAL"];

// A line of the queue says the reason, not behind which id it stands and whom the limit keeps.
const waits = (why) => why.replace(/^number (\d+) in the queue, behind \S+, which waits for: /, "number $1: ").replace(/^(number \d+: )?[^:;]+: (?=needs )/, "$1");

export const moment = (micros) => new Date(micros / 1000).toISOString().slice(0, 19).replace("T", " ");

// Names of a kind differ at their ends: cut in the middle.
const squeezed = (text, most) => (text.length > most ? `${text.slice(0, most - 9)}…${text.slice(-8)}` : text);

const scopeName = (row) => `${row.unit} per ${row.window}${row.scope === "global" ? "" : ` · ${row.scope.replace(":", " ")}`}`;

// -- tables whose rows stay the same elements while their cells change ---------------------------

class Table {
  constructor(columns, empty) {
    this.columns = columns;
    this.rows = new Map();
    this.body = h("tbody");
    const heads = columns.map((c) => h("th", { class: c.class || "", scope: "col" }, c.name));
    const cols = columns.map((c) => h("col", { class: c.class || "", width: c.width }));
    this.table = h("table", {}, h("colgroup", {}, cols), h("thead", {}, h("tr", {}, heads)), this.body);
    this.empty = h("p", { class: "empty" }, empty);
    this.root = h("div", {}, this.table, this.empty);
  }

  show(items, key) {
    this.table.hidden = !items.length;
    this.empty.hidden = items.length > 0;
    const wanted = new Set();
    items.forEach((item, place) => {
      const name = key(item);
      wanted.add(name);
      let row = this.rows.get(name);
      if (!row) {
        row = h("tr", {}, this.columns.map((c) => h("td", { class: c.class || "" })));
        this.rows.set(name, row);
      }
      this.columns.forEach((column, n) => fill(row.children[n], column, item));
      if (this.body.children[place] !== row) this.body.insertBefore(row, this.body.children[place] || null);
    });
    for (const [name, row] of this.rows) if (!wanted.has(name)) { row.remove(); this.rows.delete(name); }
  }
}

function fill(cell, column, item) {
  const text = String(column.text(item) ?? "");
  const cls = `${column.class || ""} ${column.cls ? column.cls(item) : ""}`.trim();
  if (cell.className !== cls) cell.className = cls;
  const href = column.href ? column.href(item) : "";
  if (cell.dataset.text === text && (cell.dataset.href || "") === href) return;
  cell.dataset.text = text;
  cell.dataset.href = href;
  cell.title = text;
  const shown = column.show ? column.show(item) : text;
  cell.replaceChildren(href ? h("a", { href, "data-nav": true }, shown) : shown);
}

function card(title, ...content) {
  const small = h("small");
  const root = h("section", { class: "card" }, h("h2", {}, title, small), content);
  return { root, small };
}

// -- the fleet ----------------------------------------------------------------------------------

export class Fleet {
  constructor(taskHref, onWorker) {
    const task = (row) => (row.task ? taskHref(row.task) : "");
    this.workers = new Table([
      { name: "Worker", width: "120", text: (r) => r.worker, show: (r) => squeezed(r.worker, 15) },
      { name: "State", width: "84", text: (r) => r.word, cls: (r) => `word ${r.word}` },
      { name: "Agent", class: "soft wide", width: "108", text: (r) => [r.agent || "any", r.model].filter(Boolean).join(" · ") },
      { name: "Task", text: (r) => (r.title || r.task) + (r.running > 1 ? `  (+${r.running - 1})` : ""), href: task },
      { name: "Last sign", class: "soft wide", width: "112", text: (r) => `${r.evidence} ${age(r.sign_age)}`, cls: (r) => (r.word === "stalled" ? "severe" : "") },
      { name: "Done", class: "n soft broad", width: "52", text: (r) => number(r.completed) },
      { name: "Tokens", class: "n wide", width: "66", text: (r) => short(r.tokens) },
      { name: "Cost", class: "n wide", width: "72", text: (r) => money(r.cost_nanos) },
    ], "No worker yet: asb worker w1 --driver claude");
    this.queue = new Table([
      { name: "Priority", width: "64", text: (r) => r.priority, cls: (r) => r.priority },
      { name: "Task", text: (r) => r.title || r.task, href: task },
      { name: "Kind", class: "soft wide", width: "108", text: (r) => r.kind },
      { name: "For", class: "soft broad", width: "116", text: (r) => [r.agent, r.model].filter(Boolean).join(" · ") },
      { name: "Waits for", class: "soft wide", width: "34%", text: (r) => r.why, show: (r) => waits(r.why) },
      { name: "Estimate", class: "n soft broad", width: "68", text: (r) => short(r.estimate_tokens) },
      { name: "Age", class: "n", width: "76", text: (r) => age(r.age) },
    ], "Nothing waits.");
    this.events = new Table([
      { name: "UTC", width: "74", text: (r) => clockOf(r.at, true) },
      { name: "Event", width: "128", text: (r) => r.type, cls: (r) => (r.severe ? "severe" : "") },
      { name: "Task", class: "wide", width: "20%", text: (r) => r.task, href: task },
      { name: "What it says", class: "soft", text: (r) => r.words },
    ], "Nothing has happened yet.");
    this.workers.body.addEventListener("dblclick", (event) => {
      const name = event.target.closest("tr")?.firstChild.dataset.text;
      if (name) onWorker(name);
    });
    this.needs = h("ul", { class: "needs", hidden: true, "aria-label": "needs you" });
    this.tiles = h("div", { class: "tiles" });
    this.limits = h("div", { class: "limits" });
    this.plots = { tokens: h("div"), money: h("div"), legend: h("div", { class: "legend" }) };
    this.filter = h("input", { class: "filter", type: "search", placeholder: "filter ( / )", "aria-label": "filter tasks and events" });
    this.filter.addEventListener("input", () => this.again());
    this.cards = {
      workers: card("Workers", this.workers.root), queue: card("Queue", this.queue.root), limits: card("Limits", this.limits),
      tokens: card("Tokens per hour", this.plots.tokens, this.plots.legend), money: card("Cost per hour", this.plots.money),
      queued: card("Waiting by priority"), events: card("Events", h("div", { class: "log" }, this.events.root)),
    };
    this.waits = h("div", { class: "limits" });
    this.cards.queued.root.append(this.waits);
    this.cards.events.root.firstChild.append(this.filter);
    const c = this.cards;
    this.root = h("div", { class: "stack" }, this.needs, this.tiles,
      h("div", { class: "columns" },
        h("div", { class: "stack" }, c.workers.root, c.queue.root, c.events.root),
        h("div", { class: "stack" }, c.limits.root, c.tokens.root, c.money.root, c.queued.root)));
  }

  again() { if (this.last) this.show(...this.last); }

  // `since`: µs that have passed since the view was made: ages grow, countdowns shrink.
  show(view, events, since) {
    this.last = [view, events, since];
    const older = (rows, name) => rows.map((r) => ({ ...r, [name]: r[name] + since }));
    const wanted = this.filter.value.toLowerCase();
    const match = (r) => !wanted || `${r.task} ${r.title || ""} ${r.type || ""} ${r.words || r.why || ""} ${r.worker}`.toLowerCase().includes(wanted);
    this.workers.show(older(view.workers, "sign_age"), (r) => r.worker);
    this.queue.show(older(view.queue.rows, "age").filter(match).slice(0, 12), (r) => r.task);
    this.events.show(events.filter(match).slice(-40).reverse(), (r) => r.log_id);
    const w = view.workers.filter((r) => r.word !== "left" && r.word !== "lost").length;
    this.cards.workers.small.textContent = `${w} here, ${view.workers.filter((r) => r.running).length} at work`;
    this.cards.queue.small.textContent = view.tasks.waiting > 12 ? `first 12 of ${number(view.tasks.waiting)}` : "";
    this.#needs(view);
    this.#tiles(view, since);
    this.#limits(view, since);
    this.#plots(view);
    this.#waits(view);
  }

  #needs(view) {
    const text = JSON.stringify(view.needs);
    if (this.needs.dataset.text === text) return;
    this.needs.dataset.text = text;
    this.needs.hidden = !view.needs.length;
    this.needs.replaceChildren(...view.needs.slice(0, 6).map((n) => h("li", {}, h("b", {}, n.kind), h("span", {}, n.text), h("code", {}, n.command))));
  }

  #tiles(view, since) {
    const now = view.now + since;
    const of = (unit) => view.windows.find((r) => r.scope === "global" && r.unit === unit && r.window === "day");
    const spent = of("money"), tokens = of("tokens"), burn = view.burn, t = view.today;
    const limit = (row) => (row ? [meter(row.used, row.held, row.limit, row.level), h("div", { class: "under" }, `${row.percentage} of ${bound(row)}${row.held ? `, ${amount(row.unit, row.held)} held` : ""}, ${whole(`resets in ${age(row.resets_at - now)}`)}`)] : [h("div", { class: "under" }, "no limit on the day")]);
    const ends = burn.ends_at ? h("div", { class: "under hot" }, burn.ends_at - now < 60e6 ? `${burn.ends_what} ${burn.ends_at > view.now ? "all but " : ""}used up` : `${burn.ends_what} ${whole(`ends in ${age(burn.ends_at - now)}`)}`) : h("div", { class: "under" }, "no limit in sight at this rate");
    const q = view.queue;
    this.tiles.replaceChildren(
      tile("Money today", h("div", { class: "big", id: "cost-today" }, money(t.cost_nanos)), ...limit(spent)),
      tile("Tokens today", h("div", { class: "big" }, short(t.tokens), " ", h("small", {}, `in ${short(t.input_tokens)} · out ${short(t.output_tokens)}`)), ...limit(tokens)),
      tile("Burn", h("div", { class: "big" }, money(burn.cost_nanos), " ", h("small", {}, `an hour · ${short(burn.tokens)} tokens`)), sparkline(burn.spark_tokens), ends),
      tile("Tasks", h("div", { class: "big" }, number(view.tasks.waiting), " ", h("small", {}, `waiting, ${number(view.tasks.running)} running`)),
        h("div", { class: "under" }, `${number(view.tasks.completed)} done · ${number(view.tasks.failed)} failed · ${number(view.tasks.cancelled)} cancelled`),
        h("div", { class: "under" }, q.oldest_task ? `oldest ${age(q.oldest_wait + since)}: ${waits(q.oldest_why)}` : "nothing waits")));
  }

  #limits(view, since) {
    const now = view.now + since;
    const near = (r) => (r.level !== "NONE" ? 0 : r.scope === "global" ? 1 : 2);
    const rows = [...view.windows].sort((a, b) => near(a) - near(b)).slice(0, 7);
    this.limits.replaceChildren(...rows.map((r) => {
      const hot = r.full_at && !FULL.includes(r.level);
      const ends = hot ? `full in ${age(r.full_at - now)}` : r.resets_at ? `resets in ${age(r.resets_at - now)}` : "rolling";
      return h("div", { class: "limit" }, h("span", { class: "name" }, scopeName(r)), h("span", { class: `right ${r.level}` }, r.percentage), meter(r.used, r.held, r.limit, r.level),
        h("span", { class: "note" }, `${amount(r.unit, r.used)}${r.held ? ` + ${amount(r.unit, r.held)} held` : ""} of ${bound(r)}`), h("span", { class: `note right ${hot ? "hot" : ""}` }, ends));
    }));
    const more = view.windows.length - rows.length + view.windows_left_out;
    this.cards.limits.small.textContent = more > 0 ? `${more} more: asb throttle` : "";
  }

  #plots(view) {
    const text = JSON.stringify([view.plot, narrow()]);
    if (this.plots.text === text) return;
    this.plots.text = text;
    this.plots.tokens.replaceChildren(hours(view.plot, (a) => a.tokens, short, narrow() ? 360 : 520));
    this.plots.money.replaceChildren(hours(view.plot, (a) => a.cost_nanos, money, narrow() ? 360 : 520));
    this.plots.legend.replaceChildren(...view.plot.agents.map((a, n) => h("span", { class: `s${Math.min(n, 8)}` }, a.agent)));
  }

  #waits(view) {
    const all = Math.max(1, ...Object.values(view.queue.by_priority));
    this.waits.replaceChildren(...Object.entries(view.queue.by_priority).map(([name, count]) => h("div", { class: "limit" }, h("span", { class: `name ${name}` }, name), h("span", { class: "right" }, number(count)), meter(count, 0, all))));
    const s = view.queue.by_status;
    this.cards.queued.small.textContent = `${number(s.blocked)} after others, ${number(s.backoff)} to be tried again`;
  }
}

const tile = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), content);

// -- one task ------------------------------------------------------------------------------------

export function taskPage(page, now, act) {
  const events = new Table([
    { name: "UTC", width: "76", text: (r) => clockOf(r.at, true), class: "faint wide" },
    { name: "After", class: "n soft", width: "68", text: (r) => `+${age(r.at - page.submitted_at)}` },
    { name: "Event", width: "136", text: (r) => r.type, cls: (r) => (r.severe ? "severe" : "") },
    { name: "What it says", class: "soft wrap", text: (r) => r.words },
    { name: "Log id", class: "faint wide", width: "150", text: (r) => r.log_id, href: (r) => `/?at=${r.log_id}` },
  ], "");
  events.show(page.events, (r) => r.log_id);
  const over = page.ended_at > 0;
  const failure = page.status === "failed" && page.events.findLast((r) => r.type === "task.failed");
  const facts = [
    ["Failed with", failure && failure.words], ["Waits for", page.waiting], ["Route", page.route && `${page.kind} → ${page.route}`], ["Because", page.reason], ["Priority", page.priority], ["Project", page.project],
    ["Submitted", `${moment(page.submitted_at)} UTC`], ["Took", over ? age(page.ended_at - page.submitted_at) : ""],
    ["Cost", `${page.cost}, ${number(page.tokens)} tokens`], ["Disputed", page.disputed_tokens ? `${number(page.disputed_tokens)} tokens, not charged` : ""],
  ].filter(([, value]) => value);
  const button = over ? h("button", { type: "button", onclick: () => act("retry", { task: page.task }) }, "Do it again") : h("button", { type: "button", class: "danger", onclick: () => act("cancel", { task: page.task }) }, "Cancel");
  return h("div", { class: "stack" },
    h("div", { class: "headline" }, h("h1", {}, `Task ${page.task}`), h("span", { class: `word ${page.status}` }, page.status), h("span", { class: "actions" }, button)),
    h("div", { class: "columns" },
      h("div", { class: "stack" },
        card("What is asked", h("p", { class: "text", id: "prompt" }, page.text || "forgotten")).root,
        page.attempts.length ? card("Attempts, to scale", attempts(page, now, narrow() ? 360 : 760)).root : null,
        card("History", events.root).root,
        page.result ? card("Result", h("p", { class: "text" }, page.result)).root : null),
      card("Facts", h("dl", { class: "facts" }, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))).root));
}

// -- a report ------------------------------------------------------------------------------------

export function reportPage(report, chosen) {
  const tab = (name, query) => h("a", { href: `/report${query}`, "data-nav": true, "aria-current": query === chosen ? "page" : undefined }, name);
  const sums = (title, rows) => {
    const entries = Object.entries(rows || {}).sort((a, b) => b[1].tokens - a[1].tokens).slice(0, 12);
    const top = Math.max(1, ...entries.map(([, r]) => r.tokens));
    return entries.length ? card(title, h("div", { class: "limits" }, entries.map(([name, r]) => h("div", { class: "limit" }, h("span", { class: "name" }, name), h("span", { class: "right" }, money(r.cost_nanos)), meter(r.tokens, 0, top), h("span", { class: "note" }, `${number(r.tokens)} tokens`), h("span", { class: "note right" }, `${number(r.tasks)} done`))))).root : null;
  };
  const t = report.total, f = report.facts, s = report.savings;
  const dearest = new Table([
    { name: "Task", text: (r) => report.texts[r.task] || r.task, href: (r) => `/task/${encodeURIComponent(r.task)}` },
    { name: "Kind", class: "soft wide", width: "110", text: (r) => r.kind },
    { name: "Agent", class: "soft wide", width: "150", text: (r) => `${r.agent} · ${r.model}` },
    { name: "Tokens", class: "n", width: "80", text: (r) => number(r.tokens) },
    { name: "Cost", class: "n", width: "80", text: (r) => money(r.nanos) },
  ], "none");
  dearest.show(f.dearest, (r) => r.task);
  const failures = new Table([
    { name: "Failed with", text: (r) => r.error || "(no words)" },
    { name: "Attempts", class: "n", width: "80", text: (r) => number(r.count) },
    { name: "For good", class: "n", width: "80", text: (r) => number(r.final) },
    { name: "Newest", class: "soft wide", width: "180", text: (r) => r.task, href: (r) => `/task/${encodeURIComponent(r.task)}` },
  ], "Nothing failed.");
  failures.show(f.failures, (r) => `${r.error} ${r.task}`);
  const less = s ? s.uniform_nanos - s.cost_nanos : 0;
  const saved = !s ? "not enough data" : less > 0 ? `${money(less)} less than all of it on ${s.model}` : `none against all of it on ${s.model}`;
  const standing = report.standing.replace(/T(\d\d:\d\d):\d\dZ/, " $1 UTC").replace(/T(\d\d:\d\d):\d\d/, " $1");
  return h("div", { class: "stack" },
    h("div", { class: "headline" }, h("h1", {}, `Report ${report.name}`), h("span", { class: "soft" }, standing),
      h("span", { class: "tabs actions" }, tab("Today", ""), tab("Yesterday", "?date=yesterday"), tab("Week", "?week=this"), tab("Month", "?month=this"))),
    h("div", { class: "tiles" },
      tile("Cost", h("div", { class: "big" }, money(t.cost_nanos)), h("div", { class: "under" }, `measured savings: ${saved}`)),
      tile("Tokens", h("div", { class: "big" }, short(t.tokens_used)), h("div", { class: "under" }, `in ${short(t.input_tokens)} · out ${short(t.output_tokens)} · cache read ${short(t.cache_read_tokens)}${t.estimated_tokens ? ` · ${short(t.estimated_tokens)} estimated` : ""}`)),
      tile("Tasks done", h("div", { class: "big" }, number(t.tasks_completed)), h("div", { class: "under" }, `${number(f.submitted)} came in · ${number(f.failed)} failed for good · ${number(f.cancelled)} cancelled`)),
      tile("Median wait", h("div", { class: "big" }, age(f.waits.median)), h("div", { class: "under" }, `95 of 100 within ${age(f.waits.p95)}, the longest ${age(f.waits.longest)}`))),
    h("div", { class: "columns" },
      h("div", { class: "stack" }, card("Dearest tasks", dearest.root).root, card("Failures", failures.root).root),
      h("div", { class: "stack" }, sums("Per day", report.days), sums("Per agent", report.agents), sums("Per model", report.models), sums("Per kind", report.kinds), sums("Per project", report.projects))));
}
