// The page at work: one stream of news, and what it changes. Without this file the page is complete but still.
import { Chart } from "./chart.js";
import { tickTimes } from "./time.js";

const byId = (id) => document.getElementById(id);
const live = byId("live");
const rows = new Map([...document.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, row]));
const chart = new Chart(byId("chart"), byId("legend"), byId("bucket"));
const every = Number(live.dataset.every); // s between two requests, where the server cannot hold a stream open
const POLL_TIMEOUT = 30_000; // ms
const RETRY = 10_000; // ms until another try, where the browser gave up by itself
let ahead = 0; // seconds that the server's clock is ahead of ours
let devices = null;
let spoken = null;

function connect() {
  const source = new EventSource(live.dataset.url + location.search);
  source.addEventListener("start", (event) => {
    const news = JSON.parse(event.data);
    show(news);
    if (news.chart) chart.load(news.chart, news.now);
    say("on", "live");
  });
  source.addEventListener("news", (event) => {
    const news = JSON.parse(event.data);
    show(news);
    chart.add(news.points, news.now);
  });
  source.addEventListener("error", () => {
    say("lost", "reconnecting");
    if (source.readyState === EventSource.CLOSED) retry(); // refused: signed out, or too many open pages
  });
}

async function retry() {
  await new Promise((resolve) => setTimeout(resolve, RETRY));
  const reply = await fetch(location.href, { redirect: "manual" }).catch(() => null);
  if (reply?.type === "opaqueredirect") say("lost", "signed out");
  else connect();
}

// All that is shown, again and again: for servers that would hold a thread for each stream.
async function poll() {
  const options = { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(POLL_TIMEOUT) };
  const reply = await fetch(live.dataset.url + location.search, options).catch(() => null);
  if (reply?.status === 403) {
    say("lost", "signed out");
    return;
  }
  const news = reply?.ok ? await reply.json().catch(() => null) : null;
  if (news) {
    show(news);
    if (news.chart) chart.refresh(news.chart, news.now);
  }
  say(news ? "on" : "lost", news ? `updates every ${every} s` : "reconnecting");
  setTimeout(poll, every * 1000);
}

function say(state, text) {
  live.className = `live ${state}`;
  if (byId("live-text").textContent !== text) byId("live-text").textContent = text;
}

function show(news) {
  ahead = news.now - Date.now() / 1000;
  for (const [key, html] of Object.entries(news.rows ?? {})) patch(rows.get(key), html);
  for (const [name, text] of Object.entries(news.counts ?? {})) {
    document.querySelector(`[data-count="${name}"]`).textContent = text;
  }
  if (news.counts) {
    if (devices !== null && devices !== news.counts.devices) byId("grown").hidden = false;
    devices = news.counts.devices;
    document.querySelector('[data-count="denied"]').parentElement.classList.toggle("alarm", news.counts.denied !== "0");
  }
  // Rendered and escaped by the server, with the template that the page itself is made of.
  if (news.denials !== undefined) {
    byId("denials").innerHTML = news.denials;
    if (spoken !== null && spoken !== news.denial) byId("denial-news").textContent = news.denial;
    spoken = news.denial;
  }
  if (news.quarantine !== undefined) {
    byId("quarantine").innerHTML = news.quarantine;
    byId("quarantine-count").textContent = news.quarantined;
  }
  tickTimes(Date.now() / 1000 + ahead);
}

// Cell by cell, so that only what changed lights up.
function patch(row, html) {
  if (!row) return; // on another page of the table
  const made = document.createElement("template");
  made.innerHTML = html;
  const fresh = made.content.querySelector("tr");
  [...fresh.cells].forEach((cell, i) => {
    const old = row.cells[i];
    if (cell.innerHTML === old.innerHTML && cell.title === old.title) return;
    const changed = cell.querySelector("b") && cell.textContent !== old.textContent;
    if (changed) cell.classList.add("fresh");
    old.replaceWith(cell);
  });
}

byId("reading")?.addEventListener("change", () => byId("pick").submit());
setInterval(() => tickTimes(Date.now() / 1000 + ahead), 1000);
if (every) poll();
else connect();
