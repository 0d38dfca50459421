// Charts in SVG: lines over time, and how times are spread. Colours and strokes come from the style sheet.

import { attribute, byId, el, svg, text } from "./dom.js";
import * as format from "./format.js";

const HEIGHT = 190;
const EDGE = { top: 10, right: 56, bottom: 22, left: 62 };

// Numbers 1, 2, 5, 10… so that there are at most `most` steps up to `top`.
function steps(top, most) {
  const rough = top / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const list = [];
  for (let n = 0; n <= top * 1.0001; n += step) list.push(n);
  return list;
}

const linear = (top) => ({ at: (value) => value / top, ticks: steps(top, 4) });

function logarithmic(low, high) {
  const [from, to] = [Math.floor(Math.log10(low)), Math.max(Math.ceil(Math.log10(high)), Math.floor(Math.log10(low)) + 1)];
  const ticks = [];
  for (let n = from; n <= to; n += 1) ticks.push(10 ** n);
  return { at: (value) => (Math.log10(Math.max(value, 10 ** from)) - from) / (to - from), ticks };
}

// Lines over the last `windowMs`. `kind`: { id, title, lines: [{ key, name }], scale(points), show(value), area }.
export class TimeChart {
  constructor(kind) {
    this.kind = kind;
    this.at = null; // the point that is read out: that under the pointer, or chosen with the arrow keys
    this.figure = byId(kind.id);
    this.readout = el("output", { class: "readout" });
    this.canvas = el("div", { class: "canvas", tabindex: "0", role: "img" });
    this.figure.append(el("figcaption", null, el("strong", null, kind.title), this.readout), this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.choose(null));
    this.canvas.addEventListener("blur", () => this.choose(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  update(points, now, windowMs) {
    Object.assign(this, { points, now, windowMs });
    this.draw();
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.choose(null);
    if (!move || !this.points?.length) return;
    event.preventDefault();
    const last = this.points.length - 1;
    const from = this.at === null ? last + 1 : this.points.findIndex((p) => p.atMs === this.at);
    this.choose(this.points[Math.min(last, Math.max(0, from + move))].atMs);
  }

  point(x) {
    if (!this.points?.length) return;
    const near = (p) => Math.abs(this.x(p) - x);
    this.choose(this.points.reduce((best, p) => (near(p) < near(best) ? p : best)).atMs);
  }

  choose(at) {
    this.at = at;
    this.draw();
  }

  x(point) {
    const share = 1 - (this.now - middle(point)) / this.windowMs;
    return EDGE.left + share * (this.canvas.clientWidth - EDGE.left - EDGE.right);
  }

  draw() {
    const width = this.canvas.clientWidth;
    if (!this.points || width < 80) return;
    const { kind } = this;
    const points = this.points.filter((p) => this.now - middle(p) <= this.windowMs);
    const scale = kind.scale(points);
    const y = (value) => HEIGHT - EDGE.bottom - scale.at(value) * (HEIGHT - EDGE.top - EDGE.bottom);
    const picture = svg("svg", { width, height: HEIGHT, "aria-hidden": "true" });
    this.grid(picture, scale, y, width);
    for (const [index, line] of kind.lines.entries()) this.line(picture, line, index, points, y, width);
    const chosen = points.find((p) => p.atMs === this.at);
    if (chosen) {
      picture.append(svg("line", { class: "cursor", x1: this.x(chosen), x2: this.x(chosen), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    }
    this.canvas.replaceChildren(picture);
    this.say(chosen, points);
  }

  grid(picture, scale, y, width) {
    for (const tick of scale.ticks) {
      picture.append(
        svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick) }),
        svg("text", { class: "tick", x: EDGE.left - 8, y: y(tick) + 4, "text-anchor": "end" }, this.kind.show(tick)),
      );
    }
    for (const minutes of width < 420 ? [15, 10, 5, 0] : [15, 12, 9, 6, 3, 0]) {
      const x = EDGE.left + (1 - minutes / 15) * (width - EDGE.left - EDGE.right);
      const label = minutes === 0 ? "now" : `−${minutes} min`;
      picture.append(svg("text", { class: "tick", x, y: HEIGHT - 6, "text-anchor": "middle" }, label));
    }
  }

  line(picture, line, index, points, y, width) {
    const has = points.filter((p) => line.key(p) !== null);
    if (has.length === 0 || (line.quiet && has.every((p) => line.key(p) === 0))) return;
    const path = [];
    let before = null;
    for (const p of points) {
      if (line.key(p) !== null) path.push(`${before === null ? "M" : "L"}${this.x(p).toFixed(1)},${y(line.key(p)).toFixed(1)}`);
      before = line.key(p);
    }
    const last = has[has.length - 1];
    if (line.area && has.length > 1) {
      const base = HEIGHT - EDGE.bottom;
      const closed = `${path.join("").replace(/(?!^)M/g, "L")}L${this.x(last)},${base}L${this.x(has[0])},${base}Z`;
      picture.append(svg("path", { class: `fill series-${index}`, d: closed }));
    }
    picture.append(
      svg("path", { class: `stroke series-${index}`, d: path.join("") }),
      svg("text", { class: `name series-${index}`, x: width - EDGE.right + 6, y: y(line.key(last)) + 4 }, line.name),
    );
  }

  // The chosen moment in words, or else the latest.
  say(chosen, points) {
    const point = chosen ?? points[points.length - 1];
    if (!point) return text(this.readout, "nothing yet");
    const values = this.kind.lines.filter((l) => !l.quiet || l.key(point)).map((l) => {
      const value = l.key(point);
      return `${l.name} ${value === null ? "–" : this.kind.show(value)}`;
    });
    const when = chosen ? format.moment(middle(point)) : "now";
    text(this.readout, `${when}: ${values.join(", ")}`);
    attribute(this.canvas, "aria-label", `${this.kind.title} over the last 15 minutes. ${when}: ${values.join(", ")}. Arrow keys read earlier moments.`);
  }
}

const middle = (point) => point.atMs + (point.seconds * 1000) / 2;

export const throughput = () => new TimeChart({
  id: "throughput",
  title: "Statements per second",
  lines: [
    { name: "all", key: (p) => p.perS, area: true },
    { name: "errors", key: (p) => p.errorsPerS, quiet: true },
  ],
  scale: (points) => linear(Math.max(10, ...points.map((p) => p.perS)) * 1.1),
  show: (value) => `${format.rate(value)}/s`,
});

export const latency = () => new TimeChart({
  id: "latency",
  title: "Latency",
  lines: [
    { name: "p50", key: (p) => p.p50Us },
    { name: "p99", key: (p) => p.p99Us },
  ],
  scale: (points) => {
    const all = points.flatMap((p) => [p.p50Us, p.p99Us]).filter((us) => us !== null && us > 0);
    return logarithmic(Math.min(1000, ...all), Math.max(1000, ...all));
  },
  show: (value) => format.duration(value),
});

const SPREAD_HEIGHT = 120;

// How the times of one shard are spread: a bar for each bucket, with marks at p50 and p99.
export function spreadChart(shard) {
  const title = el("strong");
  const readout = el("span", { class: "readout" });
  const canvas = el("div", { class: "canvas", role: "img" });
  const node = el("figure", null, el("figcaption", null, title, readout), canvas);
  let latest = shard;
  const draw = () => drawSpread(canvas, latest);
  new ResizeObserver(draw).observe(canvas);
  const update = (item) => {
    latest = item;
    text(title, item.label);
    const { total, p50Us, p99Us } = item;
    const words = total ? `p50 ${format.duration(p50Us)}, p99 ${format.duration(p99Us)}` : "no statements";
    text(readout, words);
    attribute(canvas, "aria-label", `Latency of ${item.label}: ${words}, ${format.plural(total, "statement")}.`);
    draw();
  };
  return { node, update };
}

function drawSpread(canvas, { boundsUs, counts, total, p50Us, p99Us }) {
  const width = canvas.clientWidth;
  if (width < 80) return;
  const picture = svg("svg", { width, height: SPREAD_HEIGHT, "aria-hidden": "true" });
  const [left, base] = [4, SPREAD_HEIGHT - 20];
  const step = (width - 2 * left) / (boundsUs.length + 1);
  const most = Math.max(1, ...counts);
  picture.append(svg("line", { class: "grid", x1: left, x2: width - left, y1: base, y2: base }));
  counts.forEach((n, index) => {
    const height = n === 0 ? 0 : Math.max(1.5, (n / most) * (base - 24));
    picture.append(svg("rect", { class: "bar", x: left + index * step + 1, y: base - height, width: Math.max(1, step - 2), height }));
    if (n > 0 && index === counts.indexOf(most)) {
      const x = left + (index + 0.5) * step;
      picture.append(svg("text", { class: "tick", x, y: base - height - 4, "text-anchor": "middle" }, format.percent(n / total)));
    }
  });
  boundsUs.forEach((bound, index) => {
    if (!/^10*$/.test(String(bound))) return;
    const x = left + (index + 1) * step;
    picture.append(
      svg("line", { class: "grid", x1: x, x2: x, y1: base, y2: base + 4 }),
      svg("text", { class: "tick", x, y: SPREAD_HEIGHT - 4, "text-anchor": "middle" }, format.duration(bound)),
    );
  });
  const marks = total ? [["p50", p50Us], ["p99", p99Us]] : [];
  for (const [name, us] of marks) {
    const x = left + place(boundsUs, us) * step;
    picture.append(
      svg("path", { class: `mark ${name}`, d: `M${x},${base}l-4,7h8Z` }),
    );
  }
  canvas.replaceChildren(picture);
}

// Where a time stands among the buckets, counted in buckets.
function place(boundsUs, us) {
  const index = boundsUs.findIndex((bound) => us <= bound);
  if (index < 0) return boundsUs.length + 0.5;
  const from = index === 0 ? 0 : boundsUs[index - 1];
  return index + (us - from) / (boundsUs[index] - from);
}
