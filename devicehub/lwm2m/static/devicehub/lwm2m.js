// Draw the chart of a resource, and keep the ages of values current. Without this file the page has both in words.
import { Chart } from "./chart.js";
import { tickTimes } from "./time.js";

const EVERY = 5_000; // ms
const box = document.getElementById("now");
const ahead = Number(box?.dataset.now ?? Date.now() / 1000) - Date.now() / 1000; // s that the server's clock is ahead
setInterval(() => tickTimes(Date.now() / 1000 + ahead), EVERY);

const data = document.getElementById("chart-data");
if (data) {
  const about = JSON.parse(data.textContent);
  const [place, legend, corner] = ["chart", "legend", "bucket"].map((id) => document.getElementById(id));
  new Chart(place, legend, corner).load(about, about.now);
  tickTimes(about.now); // An empty chart names the age of the latest value.
}
