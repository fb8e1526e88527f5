// The chart: one line per device. Buckets also have a band from the lowest to the highest value.

const COLOURS = 8;
const DASHED_FROM = 4; // From this series on lines are dashed, for readers who cannot distinguish the colours.
const GAP = 4; // A pause of this many usual steps is a gap, which no line crosses.

export class Chart {
  constructor(box, legend, corner) {
    this.box = box;
    this.legend = legend;
    this.corner = corner;
    this.series = [];
    this.hidden = new Set();
    this.plot = null;
    this.zoomed = false;
    this.hovered = false;
    new ResizeObserver(() => this.resize()).observe(box);
    // The colours follow the system's theme, or the one that the reader chose.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.build());
    new MutationObserver(() => this.build()).observe(document.documentElement, { attributeFilter: ["data-theme", "class"] });
  }

  load(chart, now) {
    this.about = chart;
    this.now = now;
    this.series = [];
    this.merge(chart.series);
    this.build();
  }

  // Load the whole chart again. If its lines and steps are the same, it keeps the plot, and so the zoom.
  refresh(chart, now) {
    const isDrawn = (one) => this.series.some((series) => series.device === one.device);
    if (this.about?.step !== chart.step || !chart.series.every(isDrawn)) {
      this.load(chart, now);
      return;
    }
    this.about = chart;
    this.add(chart.series, now);
  }

  // Add new points or recomputed buckets; they replace those of the same time.
  add(points, now) {
    if (!this.about) return;
    this.now = now;
    const count = this.series.length;
    this.merge(points ?? []);
    for (const one of this.series) dropBefore(one, now - this.about.seconds);
    if (this.series.length !== count || !this.plot) this.build();
    else if (points?.length || !(this.hovered || this.zoomed)) this.draw();
  }

  merge(incoming) {
    for (const part of incoming) {
      let one = this.series.find((series) => series.device === part.device);
      if (!one) {
        if (this.series.length === COLOURS) continue;
        one = { device: part.device, points: new Map() };
        this.series.push(one);
      }
      part.t.forEach((time, i) => one.points.set(time, [part.v[i], part.low?.[i], part.high?.[i]]));
      one.points = new Map([...one.points].sort((a, b) => a[0] - b[0]));
    }
  }

  get isEmpty() {
    return !this.series.some((one) => one.points.size);
  }

  columns() {
    const gapsStay = this.series.map(() => [0, 2, 2, 2]); // A null spreads to the next value of its own line.
    return uPlot.join(this.series.map((one) => withGaps(one.points, this.about.step)), gapsStay);
  }

  build() {
    if (!this.about) return;
    this.plot?.destroy();
    this.plot = null;
    this.box.querySelector(".empty")?.remove();
    const { step } = this.about;
    const label = this.about.seconds > 2 * DAY ? day : clock;
    // Pixels per label: if ticks are less than a day apart, a label shows date and time.
    const space = (u, i, low, high) => (label === clock ? 70 : high - low > 10 * DAY ? 60 : 90);
    const thinned = step ? `mean, lowest and highest of ${spell(step)} · ` : "";
    this.corner.textContent = this.isEmpty ? "" : `${thinned}UTC`;
    if (this.isEmpty) {
      this.legend.replaceChildren();
      this.box.append(this.sayEmpty());
      return;
    }
    const colour = colours(this.box);
    const axis = {
      stroke: colour("--ink-3"), font: `12px ${getComputedStyle(document.body).fontFamily || "system-ui"}`,
      grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false },
    };
    const series = [{}];
    const bands = [];
    this.series.forEach((one, i) => {
      const stroke = colour(`--series-${i + 1}`);
      const show = !this.hidden.has(one.device);
      const dash = i >= DASHED_FROM ? [8, 3] : undefined;
      series.push({ label: one.device, stroke, dash, width: 1.75, show, points: { size: 4, fill: stroke } });
      const edge = { stroke: "transparent", width: 0, show, points: { show: false } };
      series.push(edge, { ...edge });
      bands.push({ series: [i * 3 + 3, i * 3 + 2], fill: faint(stroke) });
    });
    this.plot = new uPlot({
      width: this.box.clientWidth - 16,
      height: this.box.clientHeight,
      legend: { show: false },
      padding: [8, 24, 0, 0],
      cursor: { points: { size: 7 }, drag: { x: true, y: false } },
      scales: { x: { time: true, range: (u, low, high) => this.zoomed ? [low, high] : this.window() } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      axes: [{ ...axis, size: 32, space, values: (u, ticks) => ticks.map(label) }, { ...axis, size: 58, label: this.about.unit || this.about.reading, labelSize: 20, labelGap: 0, labelFont: axis.font }],
      series, bands,
      hooks: {
        setSelect: [(u) => { this.zoomed = u.select.width > 0; }],
        setCursor: [() => this.label()],
      },
    }, this.columns(), this.box);
    this.plot.over.addEventListener("mouseenter", () => { this.hovered = true; });
    this.plot.over.addEventListener("mouseleave", () => { this.hovered = false; this.draw(); });
    this.plot.over.addEventListener("dblclick", () => { this.zoomed = false; this.draw(); });
    this.buildLegend();
  }

  window() {
    return [this.now - this.about.seconds, this.now];
  }

  // The chart does not move under the cursor; points that arrive meanwhile appear afterwards.
  draw() {
    if (!this.plot || this.hovered) return;
    const { min, max } = this.plot.scales.x;
    this.plot.batch(() => {
      this.plot.setData(this.columns(), false);
      const [low, high] = this.zoomed ? [min, max] : this.window();
      this.plot.setScale("x", { min: low, max: high });
    });
    this.label();
  }

  resize() {
    this.plot?.setSize({ width: this.box.clientWidth - 16, height: this.box.clientHeight });
  }

  buildLegend() {
    this.legend.replaceChildren(...this.series.map((one, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = `s${i + 1}${i >= DASHED_FROM ? " dashed" : ""}`;
      button.setAttribute("aria-pressed", String(!this.hidden.has(one.device)));
      button.title = `Show or hide ${one.device}`;
      const name = document.createElement("span");
      name.textContent = one.device;
      button.append(document.createElement("i"), name, document.createElement("b"));
      button.addEventListener("click", () => this.toggle(one.device, i, button));
      return button;
    }));
    this.label();
  }

  toggle(device, i, button) {
    const show = this.hidden.delete(device);
    if (!show) this.hidden.add(device);
    button.setAttribute("aria-pressed", String(show));
    for (const offset of [1, 2, 3]) this.plot.setSeries(i * 3 + offset, { show });
  }

  // Show the values under the cursor, or else the latest ones, in the legend.
  label() {
    const at = this.plot?.cursor.idx;
    const time = this.hovered && at != null ? this.plot.data[0][at] : Infinity;
    this.series.forEach((one, i) => {
      let value = null;
      for (const [moment, point] of one.points) {
        if (moment > time) break;
        value = point[0];
      }
      const cell = this.legend.children[i]?.lastChild;
      if (cell) cell.textContent = value == null ? "–" : format(value, this.about.whole && !this.about.step);
    });
  }

  sayEmpty() {
    const { reading, seconds, newest, latest = "reading of this kind" } = this.about;
    const box = document.createElement("p");
    box.className = "empty";
    box.textContent = `No ${reading} in the last ${spell(seconds)}. `;
    if (!newest) box.append("No device of this kind has sent a reading yet.");
    else {
      const time = document.createElement("time");
      time.dateTime = newest;
      time.title = newest;
      box.append(`The latest ${latest} was measured `, time);
    }
    return box;
  }
}

// Return a function that computes a colour of tokens.css: a canvas does not know light-dark().
function colours(box) {
  const probe = box.appendChild(document.createElement("i"));
  const found = {};
  for (const name of ["--ink-3", "--grid", ...Array.from({ length: COLOURS }, (_, i) => `--series-${i + 1}`)]) {
    probe.style.color = `var(${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return (name) => found[name];
}

function faint(colour) {
  return colour.replace(/^rgb\((.*)\)$/, "rgba($1, 0.16)");
}

// Return [times, values, lows, highs], with a null in each pause of the device. A pause is longer than usual, and
// longer than the steps just before and after it, since a device may send seldom for a while and then often.
function withGaps(points, step) {
  const times = [...points.keys()];
  const pauses = times.slice(1).map((time, i) => time - times[i]);
  const usual = Math.max(pauses.toSorted((a, b) => a - b)[pauses.length >> 1] ?? 0, step);
  const around = (i) => Math.max(usual, Math.min(pauses[i - 1] ?? Infinity, pauses[i + 1] ?? usual));
  const columns = [[], [], [], []];
  const put = (...values) => values.forEach((value, i) => columns[i].push(value));
  let number = 0;
  for (const [time, [value, low = null, high = null]] of points) {
    const pause = number - 1;
    if (number && pauses[pause] > around(pause) * GAP) put(times[pause] + usual, null, null, null);
    put(time, value, low, high);
    number += 1;
  }
  return columns;
}

function dropBefore(one, before) {
  for (const time of one.points.keys()) {
    if (time >= before) break;
    one.points.delete(time);
  }
}

// The same format as display.value() on the server.
function format(value, whole) {
  const size = Math.abs(value);
  if (whole) return value.toLocaleString("en");
  if (size > 0 && size < 0.1) return String(Number(value.toPrecision(3)));
  const digits = size >= 10000 ? 0 : size >= 1000 ? 1 : 2;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function clock(seconds) {
  const time = new Date(seconds * 1000).toISOString();
  return seconds % 60 ? time.slice(11, 19) : time.slice(11, 16);
}

const DAY = 86400; // seconds
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

function day(seconds) {
  const time = new Date(seconds * 1000);
  const date = `${time.getUTCDate()} ${MONTHS[time.getUTCMonth()]}`;
  if (seconds % DAY) return `${date} ${clock(seconds)}`;
  return date === "1 Jan" ? `${date} ${time.getUTCFullYear()}` : date;
}

function spell(seconds) {
  if (seconds % 86400 === 0) return seconds === 86400 ? "day" : `${seconds / 86400} days`;
  if (seconds % 3600 === 0) return seconds === 3600 ? "hour" : `${seconds / 3600} hours`;
  return seconds % 60 === 0 && seconds > 60 ? `${seconds / 60} minutes` : `${seconds} seconds`;
}
