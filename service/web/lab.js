// One picture -> N generations of Bijou, JPEG and WebP, with what is left of it after each.

import { number, post } from "./api.js";
import { blobOf, canvasOf, middle, moved, nearest, open, psnr } from "./pictures.js";
import { byId, count, decibels, element } from "./format.js";
import { plot } from "./plot.js";

const SIDE = 512;
const KINDS = [["bijou", "Bijou"], ["jpeg", "JPEG"], ["webp", "WebP"]];

export class Lab {
  #runs = [];
  #abort = new AbortController();

  /** @param {() => HTMLCanvasElement | null} picture @param {(error: Error) => void} complain */
  constructor(picture, complain) {
    this.picture = picture;
    this.complain = complain;
    byId("lab-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    byId("lab-stop").addEventListener("click", () => this.#abort.abort());
    byId("lab-generation").addEventListener("input", () => this.#show(Number(byId("lab-generation").value)));
    byId("lab-quality").addEventListener("input", () => { byId("lab-quality-value").textContent = byId("lab-quality").value; });
  }

  async run() {
    const given = this.picture();
    if (!given) {
      this.#say("Choose a picture first, at the top of the page.");
      return;
    }
    this.#abort = new AbortController();
    this.#busy(true);
    const asked = {
      generations: Math.max(1, Math.min(50, Number(byId("generations").value) || 8)),
      quality: Number(byId("lab-quality").value),
      stable: byId("lab-stable").checked,
      effort: byId("lab-effort").value,
      shift: byId("lab-shift").checked,
    };
    try {
      await this.#generations(middle(given, SIDE), asked);
    } catch (error) {
      this.#say(error.name === "AbortError" ? "Stopped." : "");
      if (error.name !== "AbortError") this.complain(error);
    } finally {
      this.#busy(false);
    }
  }

  async #generations(original, { generations, quality, stable, effort, shift }) {
    const hooks = { signal: this.#abort.signal, onWait: (s) => this.#say(`The service is busy; trying again in ${s} s.`) };
    const codecs = { bijou: (canvas) => throughService(canvas, { quality, stable, effort }, hooks) };
    this.#runs = KINDS.map(([key, name]) => ({ key, name, values: [], bytes: [], canvases: [] }));
    byId("lab-result").hidden = false;
    for (let generation = 1; generation <= generations; generation++) {
      this.#say(`Generation ${generation} of ${generations} …`);
      const reference = shift ? moved(original, generation - 1) : original;
      for (const run of this.#runs) {
        if (generation === 1 && run.key !== "bijou") codecs[run.key] = await throughBrowser(original, run.key, this.#runs[0].bytes[0]);
        if (!codecs[run.key]) continue;
        const before = run.canvases.at(-1) ?? original;
        const { canvas, bytes } = await codecs[run.key](shift && generation > 1 ? moved(before, 1) : before);
        this.#abort.signal.throwIfAborted();
        run.canvases.push(canvas);
        run.bytes.push(bytes);
        run.values.push(psnr(reference, canvas));
      }
      this.#draw(generations);
    }
    this.#say(`${generations} generations done.`);
  }

  #draw(generations) {
    const done = this.#runs[0].values.length;
    byId("plot").replaceChildren(plot(this.#runs, generations));
    const slider = byId("lab-generation");
    slider.max = done;
    slider.value = done;
    this.#show(done);
    this.#tabulate();
  }

  #show(generation) {
    byId("lab-generation-value").textContent = String(generation);
    const figures = this.#runs.filter((run) => run.values.length >= generation).map((run) => {
      const given = run.canvases[generation - 1];
      const canvas = canvasOf(given.width, given.height);
      canvas.getContext("2d").drawImage(given, 0, 0);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${run.name} after generation ${generation}`);
      const text = ` ${run.name}: ${decibels(run.values[generation - 1])} dB, ${count(run.bytes[generation - 1])} bytes`;
      return element("figure", {}, canvas, element("figcaption", {}, element("span", { class: `mark ${run.key}` }), text));
    });
    byId("lab-pictures").replaceChildren(...figures);
  }

  #tabulate() {
    const runs = this.#runs.filter((run) => run.values.length);
    const head = element("tr", {}, ...["Generation", ...runs.map((r) => `${r.name}, dB`)].map((t) => element("th", { scope: "col" }, t)));
    const rows = runs[0].values.map((_, i) => element("tr", {}, element("th", { scope: "row" }, String(i + 1)),
      ...runs.map((run) => element("td", {}, run.values.length > i ? decibels(run.values[i]) : ""))));
    byId("lab-table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  }

  #say(text) {
    byId("lab-status").textContent = text;
  }

  #busy(busy) {
    byId("lab-run").disabled = busy;
    byId("lab-stop").disabled = !busy;
  }
}

/** One generation of Bijou: pixels -> PNG -> .bij -> PNG -> pixels. */
async function throughService(canvas, options, hooks) {
  const stream = await post("encode", await blobOf(canvas, "image/png"), options, hooks);
  const decoded = await post("decode", stream.blob, { format: "png" }, hooks);
  return { canvas: await open(decoded.blob, hooks), bytes: stream.blob.size, psnr: number(stream.headers, "Bijou-Psnr") };
}

/** One generation of the browser's codec, at the quality that comes closest to some bytes; null if it has none. */
async function throughBrowser(original, key, bytes) {
  const type = `image/${key}`;
  const found = await nearest(original, type, bytes);
  if (!found) return null;
  return async (canvas) => {
    const blob = await blobOf(canvas, type, found.quality);
    return { canvas: await open(blob), bytes: blob.size };
  };
}
