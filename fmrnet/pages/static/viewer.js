// A picture and what the model made of it, in a dialog: layers over each other, zoom and pan by Panzoom.
"use strict";

// viewer({url(row, kind), verdict(row), marks(row), neighbour(row, step)}) gives {open(row), update()}.
function viewer({ url, verdict, marks, neighbour }) {
  const text = page.text.viewer;
  const at = (id) => document.getElementById(id);
  const [dialog, stage, canvas, overview, wipe] = ["viewer", "stage", "canvas", "overview", "wipe"].map(at);
  const frame = element("div", { className: "frame" });
  const names = { background: "background.jpg", heat: "heat.jpg", gms: "gms.jpg", ssim: "ssim.jpg", residual: "residual.jpg" };
  let row = null;
  let marked = null;
  let moved = null;
  let layer = "heat";
  let images = {};

  function open(next) {
    row = next;
    marked = marks(row);
    if (!dialog.open) dialog.showModal();
    at("viewer-name").textContent = row.name;
    const has = Object.keys(names).filter((name) => row.kinds.includes(names[name]));
    if (!has.includes(layer)) layer = has.includes("heat") ? "heat" : "none";
    at("layers").replaceChildren(
      at("layers").querySelector("legend"),
      ...["none", ...has].map((name) =>
        element("label", {}, element("input", { type: "radio", name: "layer", value: name, checked: name === layer, onchange: () => choose(name) }), text.layers[name]),
      ),
    );
    const image = (kind) => (row.kinds.includes(kind) ? element("img", { src: url(row, kind), alt: "", draggable: false }) : null);
    images = { below: image("picture.jpg"), above: null, edge: element("div", { className: "edge" }), outline: null, thin: null, boxes: null };
    if (marked.outline) Object.assign(images, { outline: image("outline.png"), thin: image("edge.png") });
    if (marked.boxes) images.boxes = element("div", { className: "boxes" }, ...marked.defects.map(box));
    at("outline").disabled = !images.outline && !images.boxes;
    overview.replaceChildren(...[images.below, images.outline].filter(Boolean).map((one) => one.cloneNode()), frame);
    choose(layer);
    at("viewer-defects").replaceChildren(...listed());
    update();
    fit();
  }

  // What is laid over the picture.
  function choose(name) {
    layer = name;
    images.above = name === "none" ? null : element("img", { src: url(row, names[name]), alt: "", draggable: false });
    canvas.replaceChildren(...[images.below, images.above, images.above && images.edge, images.outline, images.thin, images.boxes].filter(Boolean));
    wipe.disabled = !images.above;
    wiped();
  }

  // The line stays where it is in the stage, however the picture is moved.
  function wiped() {
    const scale = moved?.getScale() ?? 1;
    const left = stage.clientWidth / 2 + scale * ((moved?.getPan().x ?? 0) - canvas.clientWidth / 2);
    const share = ((wipe.value / 100) * stage.clientWidth - left) / (scale * canvas.clientWidth);
    const place = `${100 * Math.min(Math.max(share, 0), 1)}%`;
    if (images.above) images.above.style.clipPath = `inset(0 0 0 ${place})`;
    images.edge.style.left = place;
    const wanted = at("outline").getAttribute("aria-pressed") === "true";
    const near = images.thin && (scale * canvas.clientWidth) / row.width >= 1; // where the broad one covers much
    if (images.outline) images.outline.hidden = !wanted || near;
    if (images.thin) images.thin.hidden = !wanted || !near;
    if (images.boxes) images.boxes.hidden = !wanted;
  }

  // The whole picture in the stage, or, of a slender one, which would leave most of the stage empty, what fills it
  // around the most surprising defect, beside a small view of the whole. The picture's own pixels become at most 8 pixels of
  // the screen large, and 2 by themselves.
  function fit() {
    overview.hidden = true;
    stage.style.height = `${Math.min(0.66 * innerHeight, Math.max(320, (stage.clientWidth * row.height) / row.width))}px`;
    const ratio = (row.width / row.height) * (stage.clientHeight / stage.clientWidth);
    const slender = Math.max(ratio, 1 / ratio) > 3;
    overview.hidden = !slender;
    overview.classList.toggle("tall", ratio < 1);
    overview.style.aspectRatio = `${row.width} / ${row.height}`;
    overview.style.width = ratio < 1 ? `${(stage.clientHeight * row.width) / row.height}px` : "";
    const share = Math.min(stage.clientWidth / row.width, stage.clientHeight / row.height);
    const [width, height] = [row.width * share, row.height * share];
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.style.margin = `${(stage.clientHeight - height) / 2}px 0 0 ${(stage.clientWidth - width) / 2}px`; // in the middle, as Panzoom counts
    moved?.destroy();
    canvas.style.transform = "";
    const filling = Math.max(stage.clientWidth / width, stage.clientHeight / height);
    const startScale = slender ? Math.max(1, Math.min(filling, 2 / share)) : 1;
    const surest = marked.defects[0] ?? { row: 0, column: 0, height: row.height, width: row.width };
    const start = (whole, seen, place) => {
      const most = Math.max(0, whole - seen / startScale) / 2;
      return Math.min(Math.max(whole * (0.5 - place), -most), most);
    };
    moved = Panzoom(canvas, {
      canvas: true,
      minScale: 1,
      maxScale: Math.max(8 / share, 1),
      step: 0.4,
      animate: false,
      startScale,
      startX: start(width, stage.clientWidth, (surest.column + surest.width / 2) / row.width),
      startY: start(height, stage.clientHeight, (surest.row + surest.height / 2) / row.height),
    });
    zoomed();
  }

  function zoomed() {
    const scale = (moved.getScale() * canvas.clientWidth) / row.width;
    at("zoom").textContent = percent(Math.round(100 * scale) / 100);
    canvas.classList.toggle("near", scale >= 2);
    images.edge.style.transform = `scaleX(${1 / moved.getScale()})`;
    framed();
    wiped();
  }

  // Which part of the whole is in the stage.
  function framed() {
    const { x, y } = moved.getPan();
    const side = (whole, seen, pan) => [0.5 - pan / whole - seen / (2 * moved.getScale() * whole), seen / (moved.getScale() * whole)];
    const [[left, width], [top, height]] = [side(canvas.clientWidth, stage.clientWidth, x), side(canvas.clientHeight, stage.clientHeight, y)];
    for (const [name, part] of Object.entries({ left, top, width, height })) frame.style[name] = `${100 * part}%`;
  }

  // Brings a part of the picture into the middle, with as much around it.
  function show({ row: top, column: left, height, width }) {
    const share = canvas.clientWidth / row.width;
    const room = Math.min(stage.clientWidth / (3 * width * share), stage.clientHeight / (3 * height * share));
    moved.zoom(Math.min(Math.max(room, 1), 4 / share), { force: true });
    moved.pan(canvas.clientWidth / 2 - (left + width / 2) * share, canvas.clientHeight / 2 - (top + height / 2) * share, { force: true });
    zoomed();
  }

  // A patch, as far as it lies in the picture.
  function box({ row: top, column: left, height, width }) {
    const percents = { left: left / row.width, top: top / row.height, width: Math.min(width, row.width - left) / row.width, height: Math.min(height, row.height - top) / row.height };
    const shown = element("div", {});
    for (const [name, share] of Object.entries(percents)) shown.style[name] = `${100 * share}%`;
    return shown;
  }

  function listed() {
    if (!marked.defects.length && !marked.others.length) return [element("p", { className: "faint" }, text.no_defects)];
    const cell = (name, ...content) => element(name, { className: "number" }, ...content);
    const line = (defect) => {
      const place = fill(text.place, { left: defect.column, top: defect.row });
      return element(
        "tr",
        {},
        cell("td", element("button", { type: "button", className: "name", onclick: () => show(defect) }, place)),
        cell("td", `${defect.width} × ${defect.height}`),
        cell("td", number(defect.pixels)),
        cell("td", number(defect.p_value, 2)),
      );
    };
    const head = Object.values(text.columns).map((title) => cell("th", title));
    const lines = (title, defects) => {
      const table = element("table", {}, element("thead", {}, element("tr", {}, ...head.map((one) => one.cloneNode(true)))), element("tbody", {}, ...defects.map(line)));
      return [element("h3", {}, title), element("div", { className: "defects", tabIndex: 0, role: "region", "aria-label": title }, table)];
    };
    const title = marked.more ? fill(text.some, { n: number(marked.count) }) : plural(text.defects, marked.count);
    return [
      ...(marked.count ? lines(title, marked.defects) : [element("p", {}, text.none_rare)]),
      ...(marked.others.length ? lines(plural(text.others, marked.others.length), marked.others) : []),
    ];
  }

  // Verdict and figures, which the sliders of the page may have changed.
  function update() {
    if (!row) return;
    at("viewer-verdict").replaceChildren(...verdict(row));
    const fact = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
    at("viewer-facts").replaceChildren(
      ...row.reasons.map((reason) => fact(text.reason, reason)),
      fact(text.score, number(row.score)),
      fact(text.p_value, number(row.p, 2)),
      fact(text.size, fill(row.shown < 1 ? text.reduced : text.sides, { width: number(row.width), height: number(row.height), times: number(Math.round(1 / row.shown)) })),
      fact(text.level, page.text.report.levels[row.level]),
      fact(text.seconds, number(row.seconds)),
      fact(text.path, row.path),
    );
    for (const [id, step] of [["viewer-previous", -1], ["viewer-next", 1]]) at(id).disabled = !neighbour(row, step);
  }

  function go(step) {
    const next = neighbour(row, step);
    if (next) open(next);
  }

  const zoomIn = () => moved.zoomIn();
  const zoomOut = () => moved.zoomOut();
  for (const [id, act] of Object.entries({ "viewer-previous": () => go(-1), "viewer-next": () => go(1), "viewer-close": () => dialog.close(), "zoom-in": zoomIn, "zoom-out": zoomOut, "zoom-fit": fit })) at(id).addEventListener("click", act);
  at("outline").addEventListener("click", (event) => {
    const pressed = event.target.getAttribute("aria-pressed") !== "true";
    event.target.setAttribute("aria-pressed", pressed);
    wiped();
  });
  wipe.addEventListener("input", wiped);
  for (const name of ["pointerdown", "pointermove"]) {
    overview.addEventListener(name, (event) => {
      if (!event.buttons) return;
      const whole = overview.getBoundingClientRect();
      moved.pan(canvas.clientWidth * (0.5 - (event.clientX - whole.left) / whole.width), canvas.clientHeight * (0.5 - (event.clientY - whole.top) / whole.height), { force: true });
    });
  }
  stage.addEventListener("wheel", (event) => moved.zoomWithWheel(event), { passive: false });
  canvas.addEventListener("panzoomchange", zoomed);
  addEventListener("resize", () => dialog.open && fit());
  dialog.addEventListener("keydown", (event) => {
    const acts = { PageUp: () => go(-1), PageDown: () => go(1) };
    if (event.target === stage) {
      const step = 60 / moved.getScale();
      const pan = (x, y) => () => moved.pan(x * step, y * step, { relative: true });
      Object.assign(acts, { "+": zoomIn, "=": zoomIn, "-": zoomOut, 0: fit, ArrowLeft: pan(1, 0), ArrowRight: pan(-1, 0), ArrowUp: pan(0, 1), ArrowDown: pan(0, -1) });
    }
    if (!acts[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    acts[event.key]();
  });
  return { open, update };
}
