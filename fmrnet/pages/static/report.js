// The page of a report: decides anew at another rate of false alarms, says what that costs, shows the pictures.
"use strict";

const { data } = page;
const t = page.text.report;
const main = data.level === "patch" ? "patch" : "pixel"; // the level whose threshold the sliders show
const slack = 1e-12;
let rate = data.rate;

// The p-value of the early exit beyond which a picture leaves as good, as fmrnet.inspection.early_exit has it.
function exitLevel(rate) {
  const flagged = data.exit.patch.filter((_, i) => data.exit.pixel[i] <= rate).sort((a, b) => b - a);
  const rank = Math.floor(data.exit.lost * (flagged.length + 1) + 1e-9);
  return rank ? flagged[rank - 1] : 1;
}

// What a picture is called at a rate of false alarms: "good", "defective", or "open" if it left early at the rate that
// it was inspected at, and at this one would have to be looked at more closely.
function decide(row, rate, level = exitLevel(rate)) {
  if (row.reasons.length) return "defective";
  if (data.level === "auto") {
    if (row.early > Math.max(level, rate)) return "good";
    if (row.level === "patch") return "open";
  }
  return row.p <= rate + slack ? "defective" : "good";
}
const decisions = (rate) => {
  const level = exitLevel(rate);
  return data.rows.map((row) => decide(row, rate, level));
};
const before = decisions(data.rate);
let now = before;
data.rows.forEach((row, i) => (row.index = i));

// Between the values of two rising or falling sequences.
function between(x, from, to) {
  const rising = from[from.length - 1] > from[0];
  let i = from.findIndex((value) => (rising ? value >= x : value <= x));
  if (i < 0) i = from.length - 1;
  if (i === 0) return to[0];
  const part = from[i] === from[i - 1] ? 1 : (x - from[i - 1]) / (from[i] - from[i - 1]);
  return to[i - 1] + Math.min(Math.max(part, 0), 1) * (to[i] - to[i - 1]);
}
const logs = data.rates.map(Math.log);
const { thresholds } = data.good[main];
const thresholdAt = (rate) => between(Math.log(rate), logs, thresholds);
const rateAt = (threshold) => Math.exp(between(threshold, thresholds, logs));

// --- pictures ---

const url = (row, kind) =>
  row.stem === null
    ? `data:image/${kind.endsWith("png") ? "png" : "jpeg"};base64,${document.getElementById(`file-${row.index}-${kind}`).textContent}`
    : `${row.stem}.${kind}`;

const signs = { defective: "▲", good: "○", open: "?" };
function verdict(row) {
  const [is, was] = [now[row.index], before[row.index]];
  const shown = element("span", { className: `verdict ${is}` }, `${signs[is]} ${t.is[is]}`);
  if (is !== was) shown.append(element("span", { className: "was" }, fill(t.was, { verdict: t.is[was] })));
  return [shown];
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) load(target);
  },
  { rootMargin: "400px" },
);
const load = (image) => {
  image.src = url(image.row, "thumb.jpg");
  seen.unobserve(image);
};
// Of a thumbnail, about as fmrnet.inspection.layers makes it.
function size({ width, height }) {
  const long = 4 * Math.min(width, height);
  const [w, h] = [Math.min(width, long), Math.min(height, long)];
  const shrink = Math.max(1, w / 240, h / 120);
  return [Math.round(w / shrink), Math.round(h / shrink)];
}
function thumb(row) {
  if (!row.kinds.includes("thumb.jpg")) return "";
  const [width, height] = size(row);
  const image = element("img", { alt: "", width, height, row });
  seen.observe(image);
  return element("button", { type: "button", className: "thumb", tabIndex: -1, "aria-label": fill(t.look_at, { name: row.name }), onclick: () => look.open(row) }, image);
}

const notes = (row) => [...row.reasons, ...(row.gone ? [t.gone] : [])];
const largest = (row) => Math.max(0, ...marks(row).defects.map((defect) => defect.pixels));
const order = { defective: 0, open: 1, good: 2 };
const pictures = table(
  "pictures",
  [
    { title: t.columns.picture, cell: thumb },
    { title: t.columns.name, value: (row) => row.name, cell: (row) => element("button", { type: "button", className: "name", onclick: () => look.open(row) }, row.name) },
    { title: t.columns.verdict, value: (row) => String(order[now[row.index]]), cell: verdict, live: true },
    { title: t.columns.score, value: (row) => row.score, cell: (row) => number(row.score), numeric: true },
    { title: t.columns.p_value, value: (row) => row.p, cell: (row) => number(row.p, 2), numeric: true },
    { title: t.columns.defects, value: (row) => marks(row).count, cell: (row) => (marks(row).more ? fill(t.and_more, { n: number(marks(row).count) }) : number(marks(row).count)), numeric: true, live: true },
    { title: t.columns.largest, value: (row) => largest(row), cell: (row) => (marks(row).count ? number(largest(row)) : "–"), numeric: true, live: true },
    { title: t.columns.notes, value: (row) => notes(row).join("; ") },
  ],
  data.rows,
);
// What is outlined in a picture at the rate of the sliders, as Python has it: nothing in a good one; at patch level the
// patches that the rate reaches, which at another rate than that of the inspection are boxes. What is outlined is a
// defect where hardly a good picture has the like of it, by the rate that pictures are judged by; the others are spots
// that good pictures have, too. If there are more defects than are listed, it is not known how many.
function marks(row) {
  if (now[row.index] !== "defective") return { count: 0, more: false, defects: [], others: [], outline: false, boxes: false };
  const inspected = before[row.index] === "defective" && (row.level === "pixel" || rate === data.rate);
  const boxes = !inspected && row.level !== "pixel";
  const [listed, count] = inspected ? [row.defects, row.count] : [row.wouldBe.defects, row.wouldBe.count];
  const defects = listed.filter((one) => one.p_value <= rate + slack);
  const others = boxes ? [] : listed.filter((one) => one.p_value > rate + slack);
  return { count: defects.length, more: defects.length === listed.length && count > listed.length, defects, others, outline: !boxes, boxes };
}
const look = viewer({
  url,
  verdict,
  marks,
  neighbour: (row, step) => {
    const rows = pictures.shown();
    return rows[rows.indexOf(row) + step];
  },
});

const search = document.getElementById("search");
const verdicts = document.getElementById("verdicts");
function filter() {
  const wanted = search.value.toLowerCase();
  const passes = {
    all: () => true,
    defective: (i) => now[i] === "defective",
    good: (i) => now[i] === "good",
    changed: (i) => now[i] !== before[i],
  }[verdicts.value];
  pictures.filter((row) => passes(row.index) && `${row.path} ${notes(row).join(" ")}`.toLowerCase().includes(wanted));
  const shown = pictures.shown().length;
  document.getElementById("shown").textContent = plural(t.shown, shown, { all: number(data.rows.length) });
}
search.addEventListener("input", filter);
verdicts.addEventListener("change", filter);
addEventListener("beforeprint", () => document.querySelectorAll(".thumb img:not([src])").forEach(load));

// --- the decision ---

const counted = (verdicts, verdict) => verdicts.filter((one) => one === verdict).length;
const flaggedGood = (rate) => data.good[main].p.filter((p) => p <= rate + slack).length;

function promise(rate) {
  const { promised, parts, p } = data.good[main];
  const values = { rate: percent(rate), n: number(p.length), best: percent(promised) };
  return plural(parts ? t.promise.parts : promised <= rate + slack ? t.promise.kept : t.promise.estimate, p.length, values);
}

function cost() {
  const total = data.rows.length;
  const change = (from, to) => before.filter((was, i) => was === from && now[i] === to).length;
  const lines = [];
  if (rate !== data.rate) {
    lines.push(plural(t.would, total, { defective: number(counted(now, "defective")), was: number(counted(before, "defective")) }));
    lines.push(fill(t.changes, { more: number(change("good", "defective")), less: number(change("defective", "good")) }));
    if (counted(now, "open")) lines.push(plural(t.open, counted(now, "open")));
  }
  lines.push(plural(t.good_flagged, data.good[main].p.length, { flagged: number(flaggedGood(rate)) }));
  if (rate !== data.rate) lines.push(promise(rate), fill(t.adopt, { rate: Number(rate.toPrecision(3)) }));
  return lines.map((line) => element("p", {}, line));
}

const slider = { rate: document.getElementById("rate"), threshold: document.getElementById("threshold") };
const span = (values) => [Math.log(values[0]), Math.log(values[values.length - 1])];
const spans = { rate: span(data.rates), threshold: span(thresholds).reverse() };
const place = (name, value) => (Math.log(value) - spans[name][0]) / (spans[name][1] - spans[name][0]);
const value = (name) => Math.exp(spans[name][0] + Number(slider[name].value) * (spans[name][1] - spans[name][0]));

let counts = data.rows.map((row) => marks(row).count);
function set(to, moved) {
  const [earlier, listed] = [now, counts];
  rate = to;
  now = decisions(rate);
  counts = data.rows.map((row) => marks(row).count);
  const shown = { rate: percent(rate), threshold: number(thresholdAt(rate)) };
  for (const name of ["rate", "threshold"]) {
    if (name !== moved) slider[name].value = place(name, name === "rate" ? rate : thresholdAt(rate));
    slider[name].setAttribute("aria-valuetext", shown[name]);
    document.getElementById(`${name}-shown`).textContent = shown[name];
  }
  document.getElementById("cost").replaceChildren(...cost());
  pictures.refresh((row) => earlier[row.index] !== now[row.index] || listed[row.index] !== counts[row.index] || (row.level === "patch" && now[row.index] === "defective"));
  filter();
  look.update();
  histogram?.redraw();
}
slider.rate.addEventListener("input", () => set(value("rate"), "rate"));
slider.threshold.addEventListener("input", () => set(rateAt(value("threshold")), "threshold"));
for (const [name, one] of Object.entries(slider)) {
  one.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!step) return;
    event.preventDefault();
    one.value = Number(one.value) + step / 100;
    one.dispatchEvent(new Event("input"));
  });
}
document.getElementById("reset").addEventListener("click", () => set(data.rate));

// --- scores ---

const scores = [data.rows.map((row) => row.score), data.good[main].scores];
const greatest = scores.flat().reduce((most, one) => Math.max(most, one), 2);
const end = Math.min(Math.ceil(2 * greatest) / 2, 5);
const bins = 25;
const shares = (values) => {
  const counts = new Array(bins + 1).fill(0); // the last one of all beyond
  for (const one of values) counts[Math.min(Math.floor((one / end) * bins), bins)] += 100 / values.length;
  return counts;
};
const middle = (i) => ((i + 0.5) * end) / bins;
const histogram = chart("scores", {
  x: Array.from({ length: bins + 1 }, (_, i) => middle(i)),
  xRange: [0, middle(bins) + end / bins],
  tickText: (x) => number(x, 2),
  xText: (x) => (x > end ? fill(t.and_more, { n: number(end) }) : number(x, 2)),
  yText: (y) => percent(y / 100),
  xLabel: t.score_axis,
  yLabel: t.share_axis,
  series: [
    { label: t.calibration, values: shares(scores[1]), kind: "bars", quiet: true, width: 1 },
    { label: t.batch, values: shares(scores[0]), kind: "bars", width: 0.5 },
  ],
  marks: () => [{ at: Math.min(thresholdAt(rate), middle(bins)), label: fill(t.threshold_mark, { rate: percent(rate) }) }],
  summary: () => fill(t.histogram, { n: number(data.rows.length), beyond: number(counted(now, "defective")), good: number(scores[1].length), flagged: number(flaggedGood(rate)) }),
});
pictures.sort(3);
set(data.rate);
