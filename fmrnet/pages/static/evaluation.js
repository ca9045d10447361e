// The page of an evaluation: the histogram of scores, and every picture in a table.
"use strict";

{
  const words = page.text.evaluation;
  const { each, scores } = page.data;
  const shown = (value) => (value === null ? "–" : number(value));

  const half = (scores.x[1] - scores.x[0]) / 2;
  chart("scores", {
    x: scores.x,
    xRange: scores.x.length ? [scores.x[0] - half, scores.x.at(-1) + half] : undefined,
    xLabel: words.axis_score,
    yLabel: words.axis_pictures,
    xText: (value) => number(10 ** value, 2),
    series: [
      { label: words.good, values: scores.good, kind: "bars", quiet: true, width: 0.9 },
      { label: words.defective, values: scores.defective, kind: "bars", width: 0.5 },
    ],
    marks: () => [{ at: 0, label: words.threshold }],
    summary: () => words.scores_summary,
  });

  const verdict = ({ kind, defective }) =>
    kind === "good" ? (defective ? words.false_alarm : words.passed) : defective ? words.found_short : words.missed;
  table(
    "each",
    [
      { title: words.picture, value: (row) => row.picture },
      { title: words.kind, value: (row) => row.kind },
      { title: words.verdict, value: verdict },
      { title: words.score_title, value: (row) => row.score, cell: (row) => number(row.score), numeric: true },
      { title: words.p_value, value: (row) => row.p, cell: (row) => number(row.p), numeric: true },
      { title: words.aupimo, value: (row) => row.aupimo ?? -1, cell: (row) => shown(row.aupimo), numeric: true },
    ],
    each,
  ).sort(3);
}
