// The page: a picture in, its .bij and figures out; hands .bij files to the viewer and pictures to the lab.

import { get, number, post, stages, useKey } from "./api.js";
import { Comparison } from "./compare.js";
import { byId, count, decibels, element, fixed, offer, stem } from "./format.js";
import { Lab } from "./lab.js";
import { differing, isStream, nearest, open, psnr } from "./pictures.js";
import { Viewer } from "./viewer.js";

const SAMPLES = [["hills.png", "Hills"], ["chart.png", "Chart"], ["petals.png", "Petals"]];
const SETTLE_MS = 250;

const state = { file: null, original: null, stream: null, sides: new Map(), abort: new AbortController(), limits: null };
const comparison = new Comparison(byId("compare"));
const viewer = new Viewer(complain);
new Lab(() => state.original, complain);

function complain(error) {
  const dismiss = element("button", { type: "button", class: "button" }, "Dismiss");
  dismiss.addEventListener("click", () => byId("alert").replaceChildren());
  byId("alert").replaceChildren(element("div", { class: "message error" }, element("p", {}, error.message), dismiss));
  byId("alert").scrollIntoView({ block: "nearest" });
}

const say = (text) => { byId("status").textContent = text; };
const aim = () => new FormData(byId("settings")).get("aim");

/** What the form asks for, as query options; null while a number is missing or out of range. */
function options() {
  const others = { stable: byId("stable").checked, effort: byId("effort").value, model: byId("model").value || null };
  if (aim() === "lossless") return { quality: 100, ...others };
  const field = byId(aim());
  return field.value && field.checkValidity() ? { [aim()]: field.value, ...others } : null;
}

async function take(file, name = file.name || "picture") {
  byId("alert").replaceChildren();
  if (state.limits && file.size > state.limits.body_bytes) {
    complain(new Error(`${name} has ${count(file.size)} bytes; this service takes at most ${count(state.limits.body_bytes)}.`));
    return;
  }
  if (await isStream(file)) {
    await viewer.view(file, name);
    return;
  }
  state.abort.abort();
  state.abort = new AbortController();
  try {
    say("Opening …");
    state.original = await open(file, { signal: state.abort.signal });
  } catch (error) {
    if (error.name === "AbortError") return;
    say("");
    complain(error);
    return;
  }
  state.file = { blob: file, name };
  byId("chosen").textContent = `${name}: ${count(state.original.width)} × ${count(state.original.height)} pixels, ${count(file.size)} bytes`;
  await compress();
}

async function compress() {
  if (!state.file) return;
  const asked = options();
  if (!asked) {
    say("Enter a number within the range.");
    return;
  }
  state.abort.abort();
  state.abort = new AbortController();
  const hooks = { signal: state.abort.signal, onWait: (s) => say(`The service is busy; trying again in ${s} s.`) };
  try {
    say("Encoding …");
    const encoded = await post("encode", state.file.blob, asked, hooks);
    say("Decoding …");
    const decoded = await post("decode", encoded.blob, { format: "png" }, hooks);
    const canvas = await open(decoded.blob, hooks);
    state.stream = encoded.blob;
    byId("alert").replaceChildren();
    await present(encoded, decoded, canvas, hooks.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    say("");
    complain(error);
  }
}

async function present(encoded, decoded, canvas, signal) {
  const size = encoded.blob.size;
  state.sides = new Map([["bijou", { name: "Bijou", canvas, bytes: size, psnr: number(encoded.headers, "Bijou-Psnr") }]]);
  byId("result").hidden = false;
  offer(byId("save-bij"), encoded.blob, `${stem(state.file.name)}.bij`);
  offer(byId("save-png"), decoded.blob, `${stem(state.file.name)}.png`);
  tabulate("bijou");
  time(encoded.headers, decoded.headers);
  verdict(encoded.headers, canvas);
  const lossless = number(encoded.headers, "Bijou-Quality") === 100;
  const stable = { "?1": ", stable", "?0": ", not stable" }[encoded.headers.get("Bijou-Stable")] ?? "";
  const quality = lossless ? "lossless" : `quality ${encoded.headers.get("Bijou-Quality")}`;
  for (const [key, name] of [["jpeg", "JPEG"], ["webp", "WebP"]]) {
    const found = await nearest(state.original, `image/${key}`, size);
    if (signal.aborted) return;
    if (!found) continue;
    const shown = await open(found.blob);
    state.sides.set(key, { name, canvas: shown, bytes: found.blob.size, psnr: psnr(state.original, shown) });
  }
  tabulate("bijou");
  say(`Done: ${count(size)} bytes, ${quality}${stable}.`);
  byId("result").dataset.shown = Number(byId("result").dataset.shown ?? 0) + 1;
}

/** The table of figures; choosing a row puts it on the right of the divider. */
function tabulate(chosen) {
  const { width, height } = state.original;
  const pixels = width * height;
  const row = (first, bytes, db) => element("tr", {}, first, element("td", {}, count(bytes)),
    element("td", {}, fixed((3 * pixels) / bytes, 1)), element("td", {}, fixed((8 * bytes) / pixels, 3)), element("td", {}, db));
  const rows = [...state.sides].map(([key, side]) => {
    const radio = element("input", { type: "radio", name: "side", value: key, checked: key === chosen });
    radio.addEventListener("change", () => compareWith(key));
    return row(element("td", {}, element("label", {}, radio, ` ${side.name}`)), side.bytes, decibels(side.psnr));
  });
  const given = row(element("td", {}, "The file given"), state.file.blob.size, "");
  byId("figures").tBodies[0].replaceChildren(...rows, given);
  compareWith(chosen);
}

function compareWith(key) {
  const side = state.sides.get(key);
  comparison.show(["Original", state.original], [side.name, side.canvas]);
}

function verdict(headers, canvas) {
  const box = byId("exact");
  const lossless = number(headers, "Bijou-Quality") === 100;
  box.hidden = !lossless;
  if (!lossless) return;
  const wrong = differing(state.original, canvas);
  box.classList.toggle("error", wrong > 0);
  box.textContent = wrong === 0
    ? `Checked in this browser: all ${count(canvas.width * canvas.height)} pixels are equal.`
    : `${count(wrong)} pixels differ from what this browser shows of the original, most likely by its colour management or transparent pixels.`;
}

function time(encode, decode) {
  const rows = [["Encode", stages(encode)], ["Decode", stages(decode)]]
    .flatMap(([step, list]) => list.map(([stage, ms]) => ({ step, stage, ms })));
  const most = Math.max(...rows.map((r) => r.ms), 1);
  const head = element("tr", {}, ...["Stage", "ms", "Share"].map((t) => element("th", { scope: "col" }, t)));
  const body = rows.map(({ step, stage, ms }) => {
    const bar = element("div", { class: "bar" });
    bar.style.width = `${(100 * ms) / most}%`;
    return element("tr", {}, element("td", {}, `${step}: ${stage}`), element("td", {}, fixed(ms, 1)), element("td", { class: "bar-cell" }, bar));
  });
  byId("timing").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

function listen() {
  let settled = 0;
  const later = () => {
    clearTimeout(settled);
    settled = setTimeout(compress, SETTLE_MS);
  };
  byId("settings").addEventListener("submit", (event) => event.preventDefault());
  byId("settings").addEventListener("input", (event) => {
    byId("quality-value").textContent = byId("quality").value;
    for (const control of document.querySelectorAll("[data-for]")) control.hidden = control.dataset.for !== aim();
    if (event.target.id === "key") useKey(event.target.value);
    else later();
  });
  byId("file").addEventListener("change", () => {
    if (byId("file").files.length) take(byId("file").files[0]);
    byId("file").value = "";
  });
  byId("view-it").addEventListener("click", () => viewer.view(state.stream, `${stem(state.file.name)}.bij`));
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) take(file, file.name || "pasted.png");
  });
  const curtain = byId("curtain");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    curtain.hidden = false;
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) curtain.hidden = true; });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    curtain.hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
}

function offerSamples() {
  for (const [file, name] of SAMPLES) {
    const button = element("button", { type: "button" }, element("img", { src: `web/samples/${file}`, alt: "" }), element("span", {}, name));
    button.addEventListener("click", async () => {
      try {
        take(await (await fetch(`web/samples/${file}`)).blob(), file);
      } catch {
        complain(new Error("The sample cannot be fetched. Check that the service is running."));
      }
    });
    byId("samples").append(button);
  }
}

async function introduce() {
  try {
    const info = await get("info");
    state.limits = info.limits;
    const models = info.models.map((m) => element("option", { value: m.id, selected: m.default }, m.name));
    byId("model").replaceChildren(...models);
    byId("models").hidden = models.length < 2;
    byId("about").textContent = `Bijou ${info.version} on ${info.device}; at most ${count(info.limits.pixels)} pixels and ${count(info.limits.body_bytes)} bytes a picture.`;
  } catch { /* the page works without: the service refuses what is too large */ }
}

listen();
offerSamples();
introduce();
