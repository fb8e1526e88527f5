// The page that shows new credentials once: downloads made in the browser, the light, and nothing left behind.
import { tickTimes } from "./time.js";

const once = document.getElementById("once");  // Absent on the page that shows the state only.

// Downloads are made here, so that a secret is neither sent again nor part of an address.
function save(text, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
function saveText({ currentTarget: { dataset } }) {
  save(document.getElementById(dataset.download).textContent, dataset.name, dataset.type);
}
function saveDrawing({ currentTarget: { dataset } }) {
  const drawn = document.getElementById(dataset.downloadSvg).querySelector("svg").cloneNode(true);
  drawn.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  save(drawn.outerHTML, dataset.name, "image/svg+xml");
}
// The browser may keep a left page in memory for the way back, whatever Cache-Control says: leave no secret in it.
function wipe() {
  const said = document.createElement("p");
  said.textContent = once.dataset.left || "These credentials were shown once. If they are lost, rotate them.";
  once.replaceChildren(said);
}
if (once) {
  for (const button of once.querySelectorAll("[data-download]")) button.addEventListener("click", saveText);
  for (const button of once.querySelectorAll("[data-download-svg]")) button.addEventListener("click", saveDrawing);
  for (const button of once.querySelectorAll("[data-print]")) button.addEventListener("click", () => print());
  addEventListener("pagehide", wipe);
}

// The light is replaced when there is news, so that it is read aloud once; the times in it run by themselves.
const light = document.getElementById("light");
const EVERY = 2_000, LATER = 10_000, SOON = 150;  // Milliseconds, and how many quick requests there are.
let count = 0;
async function look() {
  count += 1;
  if (!document.hidden) {
    try {
      const answer = await fetch(light.dataset.url, { headers: { Accept: "application/json" }, redirect: "error" });
      if (answer.ok) show(await answer.json());
    } catch { /* The next request may succeed. */ }
  }
  if (light.dataset.stage === "sending") document.getElementById("watching")?.remove();
  else setTimeout(look, count < SOON ? EVERY : LATER);
}
function show(news) {
  const stamp = `${news.stage} ${news.stamp}`;
  if (stamp === light.dataset.stamp) return;
  light.dataset.stage = news.stage;
  light.dataset.stamp = stamp;
  light.innerHTML = news.html;
}
if (light) {
  look();
  setInterval(() => tickTimes(Date.now() / 1000), 1_000);
}
