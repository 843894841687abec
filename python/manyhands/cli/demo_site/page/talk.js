// A WebSocket: sends what is written, shows what comes.

const $ = (id) => document.getElementById(id);
const MOST = 500; // lines that are kept

const me = `guest ${Math.floor(100 + Math.random() * 900)}`;
const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/talk/socket`);

function say(words, kind = "") {
  $("said").textContent = words;
  $("said").className = kind;
}

function open(isOpen) {
  $("words").disabled = $("send").disabled = !isOpen;
}

socket.addEventListener("open", () => {
  open(true);
  say(`connected; you are ${me}`, "good");
  $("words").focus();
});

socket.addEventListener("message", (event) => {
  const line = document.createElement("li");
  line.textContent = event.data;
  const log = $("log");
  log.append(line);
  while (log.children.length > MOST) log.firstElementChild.remove();
  log.scrollTop = log.scrollHeight;
});

socket.addEventListener("close", (event) => {
  open(false);
  say(`the conversation is over (${event.code}${event.reason ? `, ${event.reason}` : ""}); reload to begin another`, "bad");
});

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  socket.send(`${me}: ${$("words").value}`);
  $("words").value = "";
});
