// The page: which view, which moment, and what a person orders.

import { Stream } from "/static/stream.js";
import { Fleet, age, h, moment, number, reportPage, taskPage } from "/static/views.js";

const $ = (id) => document.getElementById(id);
const state = { live: null, events: [], at: 0, past: null, ends: null, away: 0, seen: 0, view: "fleet" };
const fleet = new Fleet((task) => `/task/${encodeURIComponent(task)}${state.past ? `?at=${state.past.overview.as_of}` : ""}`, onWorker);
const token = () => sessionStorage.getItem("asb-token") || "";
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

// -- what the bus says ------------------------------------------------------------------------------

new Stream("/api/stream", headers, onScene, onState).start();

function onScene(scene, resumed) {
  const before = state.live;
  state.live = scene.overview;
  state.at = performance.now();
  state.events = scene.anew ? scene.events : [...state.events, ...scene.events].slice(-300);
  if (before && (resumed || state.away)) {
    const missed = scene.overview.events - before.events;
    say(missed < 0 || scene.anew ? "Back. The log went back meanwhile: this is what stands on it now." : `Back after ${age((performance.now() - (state.away || state.at)) * 1000)}: ${number(missed)} events meanwhile.`);
  }
  state.away = 0;
  if (state.ends) state.ends.last = scene.overview.as_of;
  draw();
}

function onState(word, why) {
  if (word === "away" && why === "token") { askToken("This page asks for its token."); return; }
  if (word === "away" && !state.away) state.away = performance.now();
  if (word === "live") state.away = 0;
  head();
}

async function ask(path, options = {}) {
  const reply = await fetch(path, { cache: "no-store", ...options, headers: { ...headers(), ...(options.headers || {}) } });
  const body = await reply.json().catch(() => ({ error: `the page answered ${reply.status}` }));
  if (!reply.ok) throw Object.assign(new Error([body.error, body.hint].filter(Boolean).join(" — ")), { status: reply.status });
  return body;
}

// -- drawing ----------------------------------------------------------------------------------------

const since = () => (state.past ? 0 : (performance.now() - state.at) * 1000);
const shown = () => (state.past ? state.past.overview : state.live);

function draw() {
  head();
  if (state.view !== "fleet" || !shown()) return;
  if (!fleet.root.isConnected) $("main").replaceChildren(fleet.root);
  fleet.show(shown(), state.past ? state.past.events : state.events, since());
}

function head() {
  const view = shown(), badge = $("state");
  document.body.classList.toggle("past", Boolean(state.past));
  badge.className = `state ${state.past ? "past" : state.away ? "away" : view ? "live" : ""}`;
  badge.textContent = state.past ? "past" : state.away ? "away, trying again" : view ? "live" : "connecting";
  $("live").hidden = !state.past;
  if (!view) return;
  $("level").className = `chip ${view.level}`;
  $("level").textContent = view.level === "NONE" ? "limits OK" : view.level;
  $("level").title = view.level === "NONE" ? "Budget level NONE: no limit is near" : `Budget level ${view.level}`;
  $("reason").textContent = view.level_reason;
  $("moment").textContent = `${moment(view.now + since())} UTC`;
  if (!state.past && document.activeElement !== $("slider")) $("slider").value = 1000;
  $("link").href = `/?at=${view.as_of}`;
  $("link").title = `A link to this moment, log id ${view.as_of}, after ${number(view.events)} events`;
  if (state.view !== "fleet") return;
  document.title = `${!state.past && view.needs.length ? "! " : ""}${state.past ? "past" : view.tasks.running ? `${view.tasks.running} running` : "idle"} · asb`;
}

setInterval(() => { if (!document.hidden && !state.past) { draw(); refresh(); } }, 1000);

// A task and a report go on, too, while nobody reads with the mouse or the keys in them.
let asked = 0, known = 0;
async function refresh() {
  const here = location.href, events = state.live?.events, main = $("main");
  if (state.view === "fleet" || new URL(here).searchParams.has("at") || events === known || state.away) return;
  if (performance.now() - asked < (state.view === "report" ? 30000 : 3000) || $("dialog").open || !getSelection().isCollapsed) return;
  if (main.contains(document.activeElement) && main !== document.activeElement) return;
  asked = performance.now();
  try {
    const page = await viewed();
    if (location.href !== here || $("dialog").open) return;
    main.replaceChildren(page);
    known = events;
  } catch { /* it stays as it was; the badge says when the bus is away */ }
}

function say(text, bad = false) {
  const notice = $("notice");
  notice.textContent = text;
  notice.hidden = !text;
  notice.classList.toggle("bad", bad);
  clearTimeout(say.timer);
  if (text) say.timer = setTimeout(() => say(""), 12000);
}

// -- any moment -------------------------------------------------------------------------------------

let folding = null;
async function goTo(at, step = 0) {
  folding?.abort();
  folding = new AbortController();
  try {
    const query = `at=${encodeURIComponent(at)}${step ? `&step=${step}` : ""}`;
    const scene = await ask(`/api/moment?${query}`, { signal: folding.signal });
    state.past = scene;
    const url = new URL(location.href);
    url.pathname = "/";
    url.search = `?at=${scene.overview.as_of}`;
    history.replaceState(null, "", url);
    state.view = "fleet";
    await place(scene.overview.as_of);
    draw();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
}

async function ends() {
  state.ends ||= await ask("/api/log");
  const ms = (id) => Number(id.split("-")[0]);
  return [ms(state.ends.first), Math.max(ms(state.ends.last), ms(state.live?.as_of || "0-0"))];
}

async function place(id) {
  const [first, last] = await ends();
  if (document.activeElement !== $("slider")) $("slider").value = last > first ? Math.round((1000 * (Number(id.split("-")[0]) - first)) / (last - first)) : 1000;
}

let pending = 0;
$("slider").addEventListener("input", async () => {
  const mine = ++pending;
  await new Promise((done) => setTimeout(done, 60));
  if (mine !== pending) return;
  const value = Number($("slider").value);
  if (value >= 1000) { goLive(); return; }
  const [first, last] = await ends();
  goTo(new Date(Math.max(first, first + ((last - first) * value) / 1000)).toISOString());
});

function goLive() {
  folding?.abort();
  state.past = null;
  history.replaceState(null, "", "/");
  $("slider").value = 1000;
  state.view = "fleet";
  draw();
}

$("live").addEventListener("click", goLive);
$("back").addEventListener("click", () => shown() && goTo(shown().as_of, -1));
$("forth").addEventListener("click", () => state.past && goTo(shown().as_of, 1));
$("link").addEventListener("click", (event) => {
  event.preventDefault();
  const link = new URL($("link").href, location.href).href;
  navigator.clipboard?.writeText(link).then(() => say(`Copied: ${link}`), () => say(link));
});

// -- which view -------------------------------------------------------------------------------------

// The task or the report of the address.
async function viewed() {
  const url = new URL(location.href), at = url.searchParams.get("at");
  if (url.pathname === "/report") {
    const report = await ask(`/api/report${url.search}`);
    document.title = "report · asb";
    return reportPage(report, url.search);
  }
  const task = decodeURIComponent(url.pathname.slice(6));
  const page = await ask(`/api/task/${encodeURIComponent(task)}${at ? `?at=${encodeURIComponent(at)}` : ""}`);
  document.title = `${page.status} · ${page.task} · asb`;
  return taskPage(page, shown()?.now || Date.now() * 1000, order);
}

async function route() {
  const url = new URL(location.href), at = url.searchParams.get("at");
  state.view = url.pathname.startsWith("/task/") ? "task" : url.pathname === "/report" ? "report" : "fleet";
  for (const link of document.querySelectorAll("nav a")) link.toggleAttribute("aria-current", (link.pathname === "/report") === (state.view === "report") && state.view !== "task");
  try {
    if (state.view !== "fleet") {
      const page = await viewed();
      if (location.href === url.href) $("main").replaceChildren(page);
    } else if (at) {
      await goTo(at);
    } else {
      state.past = null;
      draw();
    }
  } catch (error) {
    $("main").replaceChildren(h("p", { class: "card" }, error.message));
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-nav]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  window.scrollTo(0, 0);
  route();
});
window.addEventListener("popstate", route);

// -- orders -----------------------------------------------------------------------------------------

function dialog(title, ...content) {
  $("dialog").replaceChildren(h("h2", {}, title), ...content);
  if (!$("dialog").open) $("dialog").showModal();
}

function askToken(why, then) {
  const input = h("input", { type: "password", autocomplete: "off", required: true, "aria-label": "token", id: "token" });
  const said = h("p", { class: "said" });
  dialog("Token", h("form", { onsubmit: async (event) => {
    event.preventDefault();
    sessionStorage.setItem("asb-token", input.value.trim());
    try {
      await ask("/api/token", json({}));
      $("dialog").close();
      then?.();
    } catch (error) { sessionStorage.removeItem("asb-token"); said.textContent = error.message; }
  } }, h("p", { class: "soft" }, `${why} It stands in the file web-token of the data folder, and stays in this tab only.`), h("label", {}, "Token", input), said, actions("Go on")));
  input.focus();
}

const json = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const actions = (name, cls = "primary") => h("div", { class: "actions" }, h("button", { type: "button", onclick: () => $("dialog").close() }, "Back"), h("button", { type: "submit", class: cls }, name));

function order(name, body) {
  if (name === "cancel") { confirm(`Cancel task ${body.task}? What it runs is ended.`, "Cancel the task", () => send(name, body)); return; }
  send(name, body);
}

function confirm(question, name, then) {
  dialog("Sure?", h("form", { onsubmit: (event) => { event.preventDefault(); $("dialog").close(); then(); } }, h("p", {}, question), actions(name, "danger")));
}

async function send(name, body) {
  if (!token()) { askToken("To act on the bus, this page needs its token.", () => send(name, body)); return; }
  try {
    const reply = await ask(`/api/order/${name}`, json(body));
    say(reply.text + (reply.task && name !== "cancel" ? ` (${reply.task})` : ""), !reply.ok);
    if (state.view === "task") route();
  } catch (error) {
    if (error.status === 401) { sessionStorage.removeItem("asb-token"); askToken("The token was wrong.", () => send(name, body)); } else say(error.message, true);
  }
}

function onWorker(name) {
  const row = shown()?.workers.find((r) => r.worker === name);
  if (row) send(row.word === "paused" ? "resume" : "pause", { worker: name });
}

function newTask() {
  const text = h("textarea", { rows: 6, required: true, "aria-label": "what is to be done", id: "text" });
  const choice = (values) => h("select", {}, values.map((v) => h("option", { value: v }, v || "any")));
  const priority = choice(["normal", "low", "high", "critical"]), agent = h("input", { placeholder: "any" }), project = h("input", { placeholder: "none" });
  dialog("New task", h("form", { onsubmit: (event) => {
    event.preventDefault();
    $("dialog").close();
    send("submit", { text: text.value, priority: priority.value, agent: agent.value.trim(), project: project.value.trim() });
  } }, h("label", {}, "What is to be done", text), h("div", { class: "row" }, h("label", {}, "Priority", priority), h("label", {}, "Agent", agent), h("label", {}, "Project", project)), actions("Submit")));
  text.focus();
}

const KEYS = [["/", "filter tasks and events"], ["[ ]", "an event back, and on"], ["l", "live again"], ["s", "a new task"], ["p", "pause a worker, or let it go on"], ["t", "light or dark"], ["r", "reports"], ["f", "the fleet"], ["?", "these keys"]];
function help() {
  dialog("Keys", h("dl", { class: "facts" }, KEYS.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])), h("p", { class: "soft" }, "The slider holds the whole log: the arrow keys move it. `link` copies the address of the moment you look at."), h("form", { method: "dialog" }, h("div", { class: "actions" }, h("button", { class: "primary" }, "Back"))));
}

function pauseDialog() {
  const names = (shown()?.workers || []).filter((r) => !["lost", "left"].includes(r.word));
  const select = h("select", { "aria-label": "worker" }, names.map((r) => h("option", { value: r.worker }, `${r.worker} — ${r.word}`)));
  dialog("Pause a worker, or let it go on", h("form", { onsubmit: (event) => { event.preventDefault(); $("dialog").close(); onWorker(select.value); } }, select, actions("Do it")));
}

function theme(next) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const chosen = next || localStorage.getItem("asb-theme") || (dark ? "dark" : "light");
  document.documentElement.dataset.theme = chosen;
  if (next) localStorage.setItem("asb-theme", next);
}
const flip = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());

$("submit").addEventListener("click", newTask);
$("theme").addEventListener("click", flip);
$("help").addEventListener("click", help);
const go = (path) => { history.pushState(null, "", path); route(); };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target !== $("slider") || $("dialog").open) return;
  const keys = {
    "/": () => fleet.filter.focus(), "[": () => $("back").click(), "]": () => $("forth").click(), l: goLive, s: newTask, p: pauseDialog, t: flip, "?": help, r: () => go("/report"), f: () => go("/"),
  };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});

theme();
route();
