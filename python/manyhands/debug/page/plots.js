// Histograms and small lines, drawn as SVG. Made of attributes alone: the page's policy forbids inline styles.

import { count, seconds } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 110;
const FLOOR = HEIGHT - 16;

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The bound below which the share of all lies, as the histogram knows it: the upper end of a bucket.
export function quantile(buckets, share) {
  const total = buckets.reduce((sum, [, n]) => sum + n, 0);
  if (total === 0) return null;
  let seen = 0;
  for (const [bound, n] of buckets) {
    seen += n;
    if (seen >= share * total) return bound === null ? Infinity : bound;
  }
  return Infinity;
}

function upTo(bound, last) {
  if (bound === null) return "none yet";
  return bound === Infinity ? `over ${seconds(last)}` : `up to ${seconds(bound)}`;
}

// Draw [[upper bound, count], ...] into a figure. The heights are logarithmic: one slow call among a million shows.
export function drawHistogram(figure, title, buckets) {
  const total = buckets.reduce((sum, [, n]) => sum + n, 0);
  const last = buckets.length > 1 ? buckets[buckets.length - 2][0] : 0;
  const words = total
    ? `${count(total)}: half ${upTo(quantile(buckets, 0.5), last)}, 99% ${upTo(quantile(buckets, 0.99), last)}`
    : "none yet";
  if (!figure.firstChild) {
    const caption = document.createElement("figcaption");
    caption.append(document.createElement("b"), document.createElement("span"));
    figure.append(caption, element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }));
  }
  const [caption, svg] = figure.children;
  caption.children[0].textContent = title;
  caption.children[1].textContent = words;
  svg.setAttribute("aria-label", `${title}: ${words}`);

  const step = WIDTH / buckets.length;
  const top = Math.log1p(Math.max(1, ...buckets.map(([, n]) => n)));
  const parts = [element("line", { class: "axis", x1: 0, x2: WIDTH, y1: FLOOR + 0.5, y2: FLOOR + 0.5 })];
  buckets.forEach(([bound], index) => {
    const label = { 0: "1 µs", 10: "1 ms", 20: "1 s" }[index];
    if (label === undefined || bound === null) return;
    const x = (index + 1) * step;
    parts.push(
      element("line", { class: "tick", x1: x, x2: x, y1: 0, y2: FLOOR }),
      element("text", { class: "scale", x, y: HEIGHT - 4, "text-anchor": "middle" }, label),
    );
  });
  buckets.forEach(([bound, n], index) => {
    if (n === 0) return;
    const height = Math.max(2, (Math.log1p(n) / top) * (FLOOR - 4));
    const bar = element("rect", {
      class: bound === null || bound > 0.1 ? "bar late" : "bar",
      x: index * step + 0.5,
      y: FLOOR - height,
      width: step - 1,
      height,
    });
    const from = index === 0 ? "0" : seconds(buckets[index - 1][0]);
    const range = bound === null ? `over ${from}` : `${from} to ${seconds(bound)}`;
    bar.append(element("title", {}, `${range}: ${count(n)}`));
    parts.push(bar);
  });
  svg.replaceChildren(...parts);
}

// A line through the values, from the left to the right edge.
export function drawSpark(svg, values) {
  const top = Math.max(1e-9, ...values);
  const points = values.map((value, index) => {
    const x = values.length > 1 ? (index / (values.length - 1)) * 100 : 0;
    return `${x.toFixed(1)},${(27 - (value / top) * 25).toFixed(1)}`;
  });
  svg.setAttribute("viewBox", "0 0 100 28");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren(element("polyline", { class: "spark", points: points.join(" ") }));
}

export function newSvg() {
  return element("svg", { "aria-hidden": "true" });
}
