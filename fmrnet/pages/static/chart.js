// Charts by uPlot, with what it leaves out: keys, the colours of the page, and the figures as a table.
"use strict";

// Draws into the figure `id`. spec: {x, xLabel, yLabel, series: [{label, values, kind, quiet, width}], marks, log,
// xText, yText, tickText, summary}. kind is "bars" or "line"; of several series the first, drawn below, may be quiet. marks() gives the
// upright lines [{at, label}], anew with each redraw. Gives {redraw}.
function chart(id, spec) {
  const figure = document.getElementById(id);
  const plot = element("div", { className: "plot", tabIndex: 0, role: "img", "aria-labelledby": `${id}-title`, "aria-describedby": `${id}-summary` });
  const summary = element("p", { id: `${id}-summary`, className: "faint" });
  const xText = spec.xText ?? ((value) => number(value));
  const yText = spec.yText ?? ((value) => number(value));
  figure.append(plot, summary, figures(spec, xText, yText));
  let drawn = null;

  function options() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = { stroke: colour("ink"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    const whole = (_, ticks) => ticks.map((tick) => (Number.isInteger(Math.log10(tick)) ? tick : null)); // powers of ten
    const dashes = [[], [8, 4], [2, 3], [12, 3, 2, 3]];
    return {
      width: Math.max(plot.clientWidth, 240),
      height: 260,
      scales: { x: { time: false, range: spec.xRange }, y: { distr: spec.log ? 3 : 1, range: spec.yRange } },
      axes: [
        { ...axis, label: spec.xLabel, values: (_, ticks) => ticks.map(spec.tickText ?? xText) },
        { ...axis, grid: { ...axis.grid, ...(spec.log ? { filter: whole } : {}) }, label: spec.yLabel, size: 64, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : yText(tick))) },
      ],
      series: [
        { label: spec.xLabel, value: (_, value) => (value === null ? "–" : xText(value)) },
        ...spec.series.map((one, i) => ({
          label: one.label,
          value: (_, value) => (value === null || value === undefined ? "–" : yText(value)),
          stroke: colour(one.quiet ? "faint" : "accent"),
          width: one.kind === "bars" ? 1 : 2,
          ...(one.kind === "bars"
            ? { fill: colour(one.quiet ? "quiet-bar" : "accent"), paths: uPlot.paths.bars({ size: [one.width ?? 0.9, Infinity] }), points: { show: false } }
            : { dash: dashes[i % dashes.length], points: { show: one.values.length < 3 } }),
        })),
      ],
      hooks: { draw: [(u) => mark(u, colour("ink"))] },
    };
  }

  function mark(u, ink) {
    for (const { at, label } of spec.marks?.() ?? []) {
      const x = u.valToPos(at, "x", true);
      if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
      u.ctx.save();
      u.ctx.strokeStyle = u.ctx.fillStyle = ink;
      u.ctx.lineWidth = 2 * devicePixelRatio;
      u.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      u.ctx.beginPath();
      u.ctx.moveTo(x, u.bbox.top);
      u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
      u.ctx.stroke();
      u.ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
      const beyond = x + u.ctx.measureText(label).width + 12 * devicePixelRatio > u.bbox.left + u.bbox.width;
      u.ctx.textAlign = beyond ? "right" : "left";
      u.ctx.fillText(label, x + (beyond ? -6 : 6) * devicePixelRatio, u.bbox.top + 14 * devicePixelRatio);
      u.ctx.restore();
    }
  }

  function draw() {
    drawn?.destroy();
    summary.textContent = spec.summary?.() ?? "";
    drawn = new uPlot(options(), [spec.x, ...spec.series.map((one) => one.values)], plot);
  }

  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = Math.min(Math.max((drawn.cursor.idx ?? (step > 0 ? -1 : spec.x.length)) + step, 0), spec.x.length - 1);
    drawn.setCursor({ left: drawn.valToPos(spec.x[at], "x"), top: drawn.bbox.height / devicePixelRatio / 2 });
  });
  let width = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth !== width && (width = plot.clientWidth)) draw();
  }).observe(plot);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", draw);
  return { redraw: draw };
}

// The same as numbers, for whoever does not see the chart; of many points some.
function figures(spec, xText, yText) {
  const step = Math.ceil(spec.x.length / 50);
  const row = (cells, name) => element("tr", {}, ...cells.map((cell) => element(name, {}, cell)));
  const body = spec.x.flatMap((x, i) =>
    i % step ? [] : [row([xText(x), ...spec.series.map((one) => (one.values[i] == null ? "–" : yText(one.values[i])))], "td")],
  );
  return element(
    "details",
    { className: "screen" },
    element("summary", {}, page.text.chart.figures),
    element("table", {}, element("thead", {}, row([spec.xLabel, ...spec.series.map((one) => one.label)], "th")), element("tbody", {}, ...body)),
  );
}
