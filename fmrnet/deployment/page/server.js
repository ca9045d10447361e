"use strict";
// The page of `fmrnet serve`: a client of the Open Inference Protocol v2, and what /status tells.

const PERIOD = 2000; // milliseconds between two looks at /status
const HEADER = "Inference-Header-Content-Length";
const OUTPUTS = ["score", "p_value", "defective", "reasons", "overlay", "anomaly_map"];
const COLOURS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]; // magma
const at = id => document.getElementById(id);

let picture = null; // the file that is shown
let shown = null; // what the server said of it
let asking = 0; // the number of the last request; older ones are not shown

const headers = () => {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
};

async function said(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

// --- a verdict ---

async function infer(model, file, rate) {
  const text = new TextEncoder().encode(JSON.stringify({
    parameters: { false_alarms: rate, binary_data_output: true },
    inputs: [{ name: "file", shape: [1], datatype: "BYTES", parameters: { binary_data_size: 4 + file.size } }],
    outputs: OUTPUTS.map(name => ({ name })),
  }));
  const size = new DataView(new ArrayBuffer(4));
  size.setUint32(0, file.size, true);
  const response = await fetch(`v2/models/${encodeURIComponent(model)}.pixel/infer`, {
    method: "POST",
    body: new Blob([text, size, file]),
    headers: { ...headers(), [HEADER]: text.length },
  });
  if (!response.ok) throw new Error(await said(response));
  return decode(await response.arrayBuffer(), Number(response.headers.get(HEADER)));
}

function decode(buffer, length) {
  const found = {};
  let start = length;
  for (const output of JSON.parse(new TextDecoder().decode(buffer.slice(0, length))).outputs) {
    const end = start + output.parameters.binary_data_size;
    const bytes = buffer.slice(start, end);
    const kinds = { FP64: Float64Array, FP32: Float32Array, BOOL: Uint8Array };
    const values = output.datatype === "BYTES" ? texts(bytes) : new kinds[output.datatype](bytes);
    found[output.name] = { shape: output.shape, values };
    start = end;
  }
  return found;
}

function texts(buffer) {
  const view = new DataView(buffer);
  const found = [];
  for (let start = 0; start < buffer.byteLength;) {
    const end = start + 4 + view.getUint32(start, true);
    found.push(new Uint8Array(buffer, start + 4, end - start - 4));
    start = end;
  }
  return found;
}

async function ask() {
  if (!picture || !at("model").value) return;
  const number = ++asking;
  at("drop").classList.add("busy");
  try {
    const found = await infer(at("model").value, picture, rate());
    if (number !== asking) return;
    shown = found;
    at("problem").hidden = true;
    at("found").hidden = false;
    show();
  } catch (error) {
    if (number !== asking) return;
    at("problem").textContent = error.message;
    at("problem").hidden = false;
    at("found").hidden = true;
  } finally {
    if (number === asking) at("drop").classList.remove("busy");
  }
  look();
}

const rate = () => Number((10 ** Number(at("rate").value)).toPrecision(2)); // as it is shown: 0.05, where the slider has 0.0501
const short = value => value === 0 ? "0" : value < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(2)));

function verdict() {
  at("share").textContent = `${Number((100 * rate()).toPrecision(2))} %, about one in ${Math.round(1 / rate())}`;
  if (!shown) return;
  const p = shown.p_value.values[0];
  const defective = p <= rate();
  at("verdict").textContent = defective ? "Defective" : "Good";
  at("verdict").classList.toggle("defective", defective);
  at("figures").textContent = `p-value ${short(p)}: the share of good pictures that look as defective.`;
}

function show() {
  verdict();
  const decoder = new TextDecoder();
  at("reasons").replaceChildren(...shown.reasons.values.map(reason => element("li", decoder.decode(reason))));
  URL.revokeObjectURL(at("overlay").src);
  at("overlay").src = URL.createObjectURL(new Blob([shown.overlay.values[0]], { type: "image/png" }));
  const [height, width] = shown.anomaly_map.shape;
  at("map").width = width;
  at("map").height = height;
  const image = new ImageData(width, height);
  shown.anomaly_map.values.forEach((value, index) => image.data.set([...colour(value), 255], 4 * index));
  at("map").getContext("2d").putImageData(image, 0, 0);
  at("caption").textContent = `${picture.name}, ${width} x ${height} pixels`;
}

function colour(value) {
  const place = Math.min(Math.max(value, 0), 0.9999) * (COLOURS.length - 1);
  const [low, high] = [COLOURS[Math.floor(place)], COLOURS[Math.floor(place) + 1]];
  return low.map((from, channel) => from + (place % 1) * (high[channel] - from));
}

function see(map) {
  at("map").hidden = !map;
  at("overlay").hidden = map;
  at("show-map").setAttribute("aria-pressed", map);
  at("show-overlay").setAttribute("aria-pressed", !map);
}

function take(files) {
  if (!files.length) return;
  picture = files[0];
  ask();
}

// --- what the server does ---

function element(kind, text, name) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function fill(table, rows, none) {
  const made = rows.map(cells => {
    const row = document.createElement("tr");
    row.append(...cells.map(cell => cell instanceof Node ? cell : element("td", cell)));
    return row;
  });
  if (!made.length) {
    const cell = element("td", none, "faint");
    cell.colSpan = at(table).tHead.rows[0].cells.length;
    made.push(document.createElement("tr"));
    made[0].append(cell);
  }
  at(table).tBodies[0].replaceChildren(...made);
}

function ago(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 120) return `${Math.round(seconds)} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

function tell(status) {
  at("state").textContent = status.ready ? "ready" : "the models are being warmed up";
  const names = [...new Set(status.models.map(model => model.name))];
  if (names.join() !== [...at("model").options].map(option => option.value).join()) {
    const before = at("model").value;
    at("model").replaceChildren(...names.map(name => new Option(name)));
    if (names.includes(before)) at("model").value = before;
    else usual(status.models);
  }
  at("queue").max = status.queue.capacity;
  at("queue").value = status.queue.waiting;
  at("depth").textContent = `${status.queue.waiting} of ${status.queue.capacity} wait`;
  fill("models", status.models.map(model => [model.name, model.version, short(model.false_alarms), model.engine]), "none");
  fill("edges", status.edges.map(edge => [edge.name, ago(status.now - edge.at), edge.requests]), "no edge has asked yet");
  fill("recent", status.recent.map(one => [
    ago(status.now - one.at),
    element("td", one.defective ? "defective" : "good", one.defective ? "defective" : ""),
    short(one.p_value),
    one.model,
    [one.edge, one.line].filter(Boolean).join(", "),
    one.id,
  ]), "none yet");
  models = status.models;
}

let models = [];
function usual(from) {
  const model = from.find(one => one.name === at("model").value);
  if (model) at("rate").value = Math.log10(model.false_alarms);
  verdict();
}

async function look() {
  try {
    const response = await fetch("status", { headers: headers() });
    const open = response.status !== 401;
    at("entrance").hidden = open;
    document.querySelector("main").hidden = !open;
    if (response.ok) tell(await response.json());
    else at("state").textContent = await said(response);
  } catch {
    at("state").textContent = "the server does not answer";
  }
}

at("file").addEventListener("change", event => take(event.target.files));
at("file").addEventListener("click", event => { event.target.value = ""; }); // the same picture again is one, too
at("model").addEventListener("change", () => { usual(models); ask(); });
at("rate").addEventListener("input", verdict);
at("rate").addEventListener("change", ask);
at("show-overlay").addEventListener("click", () => see(false));
at("show-map").addEventListener("click", () => see(true));
at("entrance").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", at("token").value);
  look();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, event => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
setInterval(() => { if (!document.hidden) look(); }, PERIOD);
look();
