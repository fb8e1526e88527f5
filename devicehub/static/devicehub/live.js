// Keep the page current with one stream of changes. Without this file the page is complete, but it does not change.
import { Chart } from "./chart.js";
import { tickTimes } from "./time.js";

const byId = (id) => document.getElementById(id);
const live = byId("live");
const rows = new Map([...document.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, row]));
const chart = new Chart(byId("chart"), byId("legend"), byId("bucket"));
let every = Number(live.dataset.every); // s between two requests, if the server cannot hold a stream open
const POLL_TIMEOUT = 30_000; // ms
const RETRY = 10_000; // ms until the next attempt, after the browser has stopped reconnecting
let ahead = 0; // s that the server's clock is ahead of ours
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
    if (source.readyState === EventSource.CLOSED) retry(); // The server refused: signed out, or too many open pages.
  });
}

async function retry() {
  await new Promise((resolve) => setTimeout(resolve, RETRY));
  const reply = await fetch(location.href, { redirect: "manual" }).catch(() => null);
  if (reply?.type === "opaqueredirect") {
    say("lost", "signed out");
    return;
  }
  // Another server may be there since, which cannot hold a stream open.
  const html = reply?.ok ? await reply.text().catch(() => "") : "";
  every = Number(new DOMParser().parseFromString(html, "text/html").getElementById("live")?.dataset.every ?? 0);
  start();
}

function start() {
  if (every) poll();
  else connect();
}

// Request the whole content again and again, from servers that would hold a thread for each stream.
async function poll() {
  const options = { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(POLL_TIMEOUT) };
  const reply = await fetch(live.dataset.url + location.search, options).catch(() => null);
  if (reply?.status === 403) {
    say("lost", "signed out");
    return;
  }
  const news = reply?.ok ? await reply.json().catch(() => null) : null;
  setTimeout(poll, every * 1000); // Also if a newer server sends something that this page cannot show.
  if (news) {
    show(news);
    if (news.chart) chart.refresh(news.chart, news.now);
  }
  say(news ? "on" : "lost", news ? `updates every ${every} s` : "reconnecting");
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
    document.querySelector('[data-count="denied"]').closest(".tile").classList.toggle("loud", news.counts.denied !== "0");
  }
  // The server renders and escapes this HTML with the templates of the page itself.
  if (news.denials !== undefined) {
    byId("denials").innerHTML = news.denials;
    byId("denials").closest(".card").hidden = !news.denial; // An empty card beside full ones is left out.
    if (spoken !== null && spoken !== news.denial) byId("denial-news").textContent = news.denial;
    spoken = news.denial;
  }
  if (news.quarantine !== undefined) {
    byId("quarantine").innerHTML = news.quarantine;
    byId("quarantine-count").textContent = news.quarantined;
    byId("quarantine-card").hidden = !byId("quarantine").querySelector("table");
  }
  tickTimes(Date.now() / 1000 + ahead);
}

// Replace changed cells only, so that only these are highlighted.
function patch(row, html) {
  if (!row) return; // The device is on another page of the table.
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
start();
