// Server-sent events: shows what comes once a second.

const $ = (id) => document.getElementById(id);
const MOST = 200; // lines that are kept

const BECAUSE = {
  OWNER_GONE: "its client hung up",
  CALLER: "somebody stopped it",
  POOL_FINISHING: "the server ends",
};

let before = null;

function say(words, kind) {
  $("said").textContent = words;
  $("said").className = kind;
}

function show(news) {
  for (const id of ["readers", "threads", "busy", "waiting", "stopped"]) $(id).textContent = news[id].toLocaleString("en");
  if (before) $("rate").textContent = Math.round((news.answered - before.answered) / (news.time - before.time)).toLocaleString("en");
  before = news;
  for (const entry of news.ended) {
    const line = document.createElement("li");
    const row = entry.row === undefined ? "" : `, at row ${entry.row + 1}`;
    const why = entry.because ? `stopped${row}: ${BECAUSE[entry.because] ?? entry.because}` : "finished";
    line.textContent = `${entry.what} of ${entry.client} ${why}`;
    $("log").prepend(line);
  }
  while ($("log").children.length > MOST) $("log").lastElementChild.remove();
}

const source = new EventSource("/news");
source.addEventListener("open", () => say("live", "good"));
source.addEventListener("message", (event) => show(JSON.parse(event.data)));
source.addEventListener("error", () => say("the server does not answer; this page tries again by itself", "bad"));
