// Starts a report, hangs up on it, and asks the server what has become of it.

const $ = (id) => document.getElementById(id);

let report = null; // what hangs up on the one that is under way

function say(words, kind = "") {
  $("said").textContent = words;
  $("said").className = kind;
}

function show(running) {
  $("start").disabled = running;
  $("hang-up").disabled = !running;
}

$("start").addEventListener("click", async () => {
  const tag = Math.random().toString(36).slice(2);
  const began = performance.now();
  report = new AbortController();
  show(true);
  const clock = setInterval(() => say(`The report runs for ${Math.round((performance.now() - began) / 1000)} s.`), 200);
  try {
    const answer = await fetch(`/report?tag=${tag}`, { signal: report.signal });
    if (!answer.ok) throw new Error(`the server says ${answer.status} ${answer.statusText}`);
    say(`The report is done: ${(await answer.text()).trim()}`, "good");
  } catch (error) {
    clearInterval(clock);
    if (error.name === "AbortError") await askWhatBecameOf(tag);
    else say(error.message, "bad");
  } finally {
    clearInterval(clock);
    show(false);
  }
});

$("hang-up").addEventListener("click", () => report.abort());

show(false);

async function askWhatBecameOf(tag) {
  for (let turn = 0; turn < 50; turn += 1) {
    const book = await (await fetch("/book")).json();
    const entry = book.find((found) => found.tag === tag);
    if (entry?.because) {
      say(`The server stopped it at row ${entry.row + 1} of 600, because its client went (${entry.because}).`, "good");
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  say("The server has not stopped it within five seconds.", "bad");
}
