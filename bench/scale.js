// How many machines a factory needs, and the chart of one.
"use strict";

{
  const { machines, sweep } = page.data;
  const given = (id) => Math.max(Number(document.getElementById(id).value), 1e-9);

  // Seconds of a picture by its pixels: straight lines between what was measured, from and to 0 beyond.
  function seconds(sizes, pixels) {
    const beyond = sizes.at(-1);
    if (pixels >= beyond.pixels) return (beyond.seconds * pixels) / beyond.pixels;
    const i = Math.max(sizes.findIndex((one) => one.pixels > pixels), 1);
    const [low, high] = [sizes[i - 1], sizes[i]];
    if (pixels <= low.pixels) return low.seconds; // a smaller one takes as long at most
    return low.seconds + ((high.seconds - low.seconds) * (pixels - low.pixels)) / (high.pixels - low.pixels);
  }

  function show() {
    const up = given("rate") * (given("share") / 100); // pictures a second and camera
    const pixels = given("megapixels") * 1e6;
    const rows = machines.map((machine) => {
      const each = seconds(machine.sizes, pixels);
      const cameras = Math.floor(machine.load / (each * up));
      return { machine, each, cameras, needed: Math.ceil((given("cameras") * up * each) / machine.load) };
    });
    document.getElementById("machines").replaceChildren(
      ...rows.map(({ machine, each, cameras, needed }) =>
        element(
          "tr",
          {},
          element("td", {}, machine.name),
          element("td", {}, machine.measured),
          ...[number(each), number(cameras), number(needed)].map((text) => element("td", { className: "number" }, text)),
        ),
      ),
    );
    const [first] = rows;
    document.getElementById("needed").textContent =
      `${number(given("cameras"))} cameras need ${number(first.needed)} of the machines measured here: ` +
      `${number(given("cameras") * up)} pictures go up a second.`;
    document.getElementById("link").textContent =
      `On the way up, as lossless WebP of a rough surface at ${number(page.data.bits)} bits a pixel: ` +
      `${number((given("cameras") * up * pixels * page.data.bits) / 1e6)} Mbit/s in all.`;
  }

  for (const id of ["cameras", "rate", "share", "megapixels"]) document.getElementById(id).addEventListener("input", show);
  show();

  chart("latency", {
    x: sweep.map((one) => one.edges),
    xLabel: "edges",
    yLabel: "seconds",
    log: true,
    series: [
      { label: "99 of 100 within", values: sweep.map((one) => one.p99), kind: "line" },
      { label: "half within", values: sweep.map((one) => one.p50), kind: "line" },
    ],
    marks: () => [{ at: page.data.edges, label: `${page.data.edges} edges` }],
    summary: () => page.data.says,
  });
}
