// The page of a model: its good pictures' scores and its loss curve.
"use strict";

const { losses, scores } = page.data;
const t = page.text.info;
const bins = 20;
const end = Math.max(1.5, ...scores.slice(-1));
const counts = new Array(bins).fill(0);
for (const one of scores) counts[Math.min(Math.floor((one / end) * bins), bins - 1)] += 1;

chart("scores", {
  x: counts.map((_, i) => ((i + 0.5) * end) / bins),
  xRange: [0, end],
  xLabel: t.score,
  yLabel: t.pictures,
  series: [{ label: page.data.held_out, values: counts, kind: "bars" }],
  marks: () => [{ at: 1, label: t.threshold }],
  summary: () => plural(t.beyond, scores.filter((one) => one > 1).length, { all: number(scores.length) }),
});
if (losses.steps.length) {
  chart("losses", {
    x: losses.steps,
    xLabel: t.step,
    yLabel: t.loss,
    log: true,
    series: losses.phases.map((phase, i) => ({ label: fill(t.phase, { n: phase }), values: losses.losses[i], kind: "line" })),
    summary: () => t.losses_about,
  });
}
