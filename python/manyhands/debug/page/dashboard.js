// Asks the program once a second what it is at, and shows it. What it was at in the last minute is remembered here, not
// there.

import { drawHistogram, drawSpark, newSvg } from "./plots.js";
import { showRows } from "./tables.js";
import { bytes, count, rate, seconds } from "./words.js";

const EVERY = 1000; // milliseconds between two looks
const PATIENCE = 5000; // milliseconds that one may take
const MINUTE = 60; // seconds that are remembered
const TOKEN = "manyhands-token";

const $ = (id) => document.getElementById(id);

let token = sessionStorage.getItem(TOKEN);
let paused = false;
let timer = null;
let past = []; // the data of the last minute, the oldest first

// --- Asking ---

function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
}

async function look() {
  clearTimeout(timer);
  try {
    const answer = await request("data.json");
    if (answer.status === 401) {
      askForToken();
      return;
    }
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    show(await answer.json());
    say("live", "good");
  } catch (error) {
    say(`no answer (${error.message})`, "bad");
  }
  if (!paused && !document.hidden) timer = setTimeout(look, EVERY);
}

async function stop(job, button) {
  button.disabled = true;
  try {
    const answer = await request("stop", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(job.pid ? { job: job.id, pid: job.pid } : { job: job.id }),
    });
    if (!answer.ok && answer.status !== 404) throw new Error((await answer.text()).trim());
  } catch (error) {
    say(`job ${job.id} was not stopped: ${error.message}`, "bad");
    button.disabled = false;
    return;
  }
  look();
}

function askForToken() {
  sessionStorage.removeItem(TOKEN);
  say(token ? "that is not the token" : "locked", "bad");
  token = null;
  $("main").hidden = true;
  $("token-form").hidden = false;
  $("token").focus();
}

function say(words, kind) {
  const live = $("live");
  live.textContent = words;
  live.className = kind;
}

// --- Showing ---

function show(data) {
  const [before] = past;
  if (before && before.process.pid !== data.process.pid) past = []; // another process answers there now
  if (past.length && past[past.length - 1].process.time === data.process.time) past.pop(); // the same look again
  past.push(data);
  while (past.length > 2 && data.process.time - past[1].process.time > MINUTE) past.shift();

  $("token-form").hidden = true;
  $("main").hidden = false;
  showProcess(data);
  showTiles(data);
  showWorkers(data.workers ?? []);
  showJobs(data.jobs);
  showThreads(data.threads);
  showLoops(data.loops);
  showPools(data.pools);
  showServers(data.servers);
  showPlots(data);
}

function showProcess({ process }) {
  document.title = `${process.name} · manyhands`;
  $("program").textContent = process.name;
  const gil = process.gil ? "" : " without GIL";
  $("process").textContent = `pid ${process.pid} · Python ${process.python}${gil}`;
  $("version").textContent = `manyhands ${process.version}`;
}

// The growth per second of a figure of the whole program, at each of the looks; the first has none before it.
function growth(figure) {
  return past.slice(1).map((data, index) => {
    const time = data.process.time - past[index].process.time;
    return time > 0 ? Math.max(0, figure(data) - figure(past[index])) / time : 0;
  });
}

const sum = (rows, figure) => rows.reduce((total, row) => total + figure(row), 0);
const ended = (pool) => pool.finished + pool.stopped;
const connected = (server) => sum(Object.values(server.connections), (n) => n);

// Label, figures, words; and whether there is anything of the kind.
const TILES = [
  ["connections", () => past.map((data) => sum(data.servers, connected)), count, (data) => data.servers.length > 0],
  ["CPU, of one core", () => growth((data) => data.process.cpu_seconds), (value) => `${Math.round(value * 100)}%`],
  ["memory", () => past.map((data) => data.process.resident_bytes), bytes],
  ["handlers / s", () => growth((data) => sum(data.loops, (loop) => loop.handled)), rate],
  ["jobs ended / s", () => growth((data) => sum(data.pools, ended)), rate],
  ["jobs at work", () => past.map((data) => sum(data.pools, (pool) => pool.busy)), count],
  ["jobs queued", () => past.map((data) => sum(data.pools, (pool) => pool.queued)), count],
];

function showTiles(data) {
  const tiles = $("tiles");
  TILES.forEach(([label, figures, words, there], index) => {
    if (!tiles.children[index]) {
      const tile = document.createElement("div");
      tile.className = "tile";
      tile.append(document.createElement("b"), document.createElement("span"), newSvg());
      tile.children[1].textContent = label;
      tiles.append(tile);
    }
    tiles.children[index].hidden = there !== undefined && !there(data);
    const values = figures();
    const [figure, , line] = tiles.children[index].children;
    figure.textContent = values.length ? words(values[values.length - 1]) : "…";
    drawSpark(line, values);
  });
}

// A table that is hidden while it has no rows, and what is said instead.
function fillTable(id, rows, key, columns, decorate) {
  $(id).hidden = rows.length === 0;
  const empty = $(`${id}-empty`);
  if (empty) empty.hidden = rows.length !== 0;
  showRows($(id).tBodies[0], rows, key, columns, decorate);
}

const state = (words) => ({ tag: "span", kind: `state ${words.toLowerCase()}`, text: words.toLowerCase() });

function showWorkers(workers) {
  $("workers-section").hidden = workers.length === 0;
  const data = past[past.length - 1];
  const last = past[past.length - 2];
  const time = last ? data.process.time - last.process.time : 0;
  const cpu = (worker) => {
    const before = (last?.workers ?? []).find((found) => found.pid === worker.pid);
    if (!worker.answered || !before?.answered || time <= 0) return "";
    return `${Math.round((Math.max(0, worker.cpu_seconds - before.cpu_seconds) / time) * 100)}%`;
  };
  showRows($("workers").tBodies[0], workers, (worker) => worker.worker, [
    (worker) => ({ tag: "span", text: worker.worker, under: worker.state === "waiting" ? "" : `pid ${worker.pid}` }),
    (worker) => ({ ...state(worker.state), under: silence(worker) }),
    (worker) => (worker.state === "waiting" ? "" : seconds(worker.age)),
    (worker) => count(worker.restarts),
    cpu,
    (worker) => (worker.resident_bytes === null ? "" : bytes(worker.resident_bytes)),
    (worker) => count(worker.threads),
    (worker) => count(worker.connections),
    (worker) => count(worker.busy),
    (worker) => count(worker.queued),
  ]);
}

function silence(worker) {
  if (worker.trouble !== null) return worker.trouble;
  return worker.silent === null ? "" : `did not answer for ${seconds(worker.silent)}`;
}

function showJobs({ counted, listed }) {
  $("jobs-count").textContent = counted > listed.length ? `${count(listed.length)} of ${count(counted)}` : count(counted);
  fillTable("jobs", listed, (job) => `${job.pid} ${job.id}`, [
    (job) => ({ tag: "span", text: job.name, under: `${job.id} in ${job.pool}${ofWorker(job)}` }),
    (job) => ({ ...state(job.status), under: job.reason ? job.reason.toLowerCase().replaceAll("_", " ") : "" }),
    (job) => seconds(job.age),
    (job) => progress(job.progress),
    (job) => job.thread,
    (job) => job.owner,
    (job) =>
      job.can_stop
        ? { tag: "button", kind: "stop", text: "Stop", title: `Tell job ${job.id} to stop`, disabled: false,
            onclick: (event) => stop(job, event.currentTarget) }
        : null,
  ]);
}

const ofWorker = (row) => (row.worker ? ` of worker ${row.worker}` : "");

function progress(of) {
  if (of === null) return null;
  if (of.done !== null && of.total !== null && of.total > 0) {
    const share = Math.min(1, Math.max(0, of.done / of.total));
    return { tag: "progress", max: 1, value: share, under: `${Math.round(share * 100)}% ${of.note}`.trim() };
  }
  return { tag: "span", text: of.done === null ? "" : count(of.done), under: of.note };
}

function showThreads({ counted, listed }) {
  $("threads-count").textContent = counted > listed.length ? `${count(listed.length)} of ${count(counted)}` : count(counted);
  fillTable(
    "threads",
    listed,
    (thread) => `${thread.pid} ${thread.id}`,
    [
      (thread) => ({ tag: "span", text: thread.name, under: ofWorker(thread).trim() }),
      (thread) => (thread.kind === "other" ? "" : `${thread.kind} ${thread.of}`),
      (thread) => thread.what,
      (thread) => seconds(thread.since),
      (thread) => thread.at,
    ],
    (row, thread) => {
      row.classList.toggle("waits", !thread.busy);
      row.cells[4].classList.add("code");
    },
  );
}

function showLoops(loops) {
  fillTable("loops", loops, (loop) => loop.key, [
    (loop) => loop.key,
    (loop) => state(loop.state),
    (loop) => count(loop.joined),
    (loop) => count(loop.ready),
    (loop) => count(loop.watches),
    (loop) => count(loop.timers),
    (loop) => count(loop.strands),
    (loop) => (loop.tasks ? count(sum(Object.values(loop.tasks), (tasks) => tasks)) : ""),
    (loop) => rate(growthOf("loops", loop, (found) => found.handled)),
    (loop) => count(loop.errors),
  ]);
  const strands = loops.flatMap((loop) => loop.busiest.map((strand, index) => ({ ...strand, loop: loop.key, index })));
  $("busiest").hidden = strands.length === 0;
  showRows($("busiest").querySelector("tbody"), strands, (strand) => `${strand.index} ${strand.loop}`, [
    (strand) => strand.name,
    (strand) => strand.loop,
    (strand) => state(strand.running ? "running" : strand.state),
    (strand) => count(strand.pending),
  ]);
}

function showPools(pools) {
  fillTable("pools", pools, (pool) => pool.key, [
    (pool) => pool.key,
    (pool) => state(pool.state),
    (pool) => count(pool.threads),
    (pool) => `${count(pool.busy)} of ${count(pool.limit)}`,
    (pool) => count(pool.queued),
    (pool) => seconds(pool.oldest_wait),
    (pool) => rate(growthOf("pools", pool, ended)),
    (pool) => count(pool.stopped),
    (pool) => count(pool.refused),
  ]);
}

function showServers(servers) {
  $("servers-section").hidden = servers.length === 0;
  const kinds = ["idle", "reading", "busy", "writing", "closing"];
  showRows($("servers").tBodies[0], servers, (server) => server.key, [
    (server) => server.key,
    (server) => server.address,
    ...kinds.map((kind) => (server) => count(server.connections[kind] ?? 0)),
  ]);
}

// The growth per second of a figure of one loop or pool since the last look.
function growthOf(kind, row, figure) {
  const data = past[past.length - 1];
  const last = past[past.length - 2];
  const before = last?.[kind].find((found) => found.key === row.key);
  const time = before ? data.process.time - last.process.time : 0;
  return time > 0 ? Math.max(0, figure(row) - figure(before)) / time : null;
}

function showPlots(data) {
  const recent = document.querySelector("#span input:checked").value === "recent";
  const used = data.pools.filter((pool) => pool.submitted > 0);
  const wanted = [
    ...data.loops.map((loop) => ["loops", loop, "handler_seconds", `${loop.key}: handlers`]),
    ...used.map((pool) => ["pools", pool, "wait_seconds", `${pool.key}: waiting for a thread`]),
    ...used.map((pool) => ["pools", pool, "run_seconds", `${pool.key}: jobs`]),
  ];
  const plots = $("plots");
  while (plots.children.length > wanted.length) plots.lastElementChild.remove();
  wanted.forEach(([kind, row, field, title], index) => {
    if (!plots.children[index]) plots.append(document.createElement("figure"));
    drawHistogram(plots.children[index], title, recent ? since(kind, row, field) : row[field]);
  });
}

// What a histogram has gained since the oldest look that is remembered.
function since(kind, row, field) {
  const before = past.length > 1 ? past[0][kind].find((found) => found.key === row.key) : undefined;
  return row[field].map(([bound, n], index) => [bound, before ? Math.max(0, n - before[field][index][1]) : 0]);
}

// --- The reader ---

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
  clearTimeout(timer);
  if (paused) say("paused", "");
  else look();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) look();
});

$("span").addEventListener("change", () => {
  if (past.length) showPlots(past[past.length - 1]);
});

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  $("token").value = "";
  sessionStorage.setItem(TOKEN, token);
  look();
});

look();
