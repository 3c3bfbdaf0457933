// A .bij file -> its levels, decoded one after the other, coarse to fine.

import { post } from "./api.js";
import { byId, count, element, offer, stem } from "./format.js";
import { open } from "./pictures.js";

const SCALES = [16, 8, 4, 2, 1];

export class Viewer {
  #levels = [];
  #abort = new AbortController();

  constructor(complain) {
    this.complain = complain;
    byId("level").addEventListener("input", () => this.#show(Number(byId("level").value)));
  }

  /** Show a stream; resolves when its finest level is there. */
  async view(blob, name) {
    this.#abort.abort();
    this.#abort = new AbortController();
    const hooks = { signal: this.#abort.signal, onWait: (s) => this.#say(`The service is busy; trying again in ${s} s.`) };
    this.#levels = [];
    byId("viewer").hidden = true;
    byId("view").scrollIntoView();
    byId("view").focus({ preventScroll: true });
    try {
      const facts = JSON.parse(await (await post("inspect", blob, {}, hooks)).blob.text());
      this.#describe(facts, name);
      for (const scale of SCALES) {
        this.#say(`Decoding 1/${scale} …`);
        const png = (await post("decode", blob, { format: "png", scale }, hooks)).blob;
        this.#add(scale, await open(png, hooks), facts, png, name);
      }
      this.#say(`${name} is shown at full size.`);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#say("");
      this.complain(error);
    }
  }

  #say(text) {
    byId("view-status").textContent = text;
  }

  #describe(facts, name) {
    byId("levels").tBodies[0].replaceChildren();
    const kind = facts.lossless ? "lossless" : `quality ${facts.quality}`;
    const extras = [
      facts.conversion && `luma and chroma of a ${facts.conversion}`, facts.has_alpha && "alpha", facts.grey && "grey",
      facts.icc_bytes && "colour profile", facts.exif_bytes && "EXIF",
    ];
    byId("facts").textContent = [
      `${name}: ${count(facts.width)} × ${count(facts.height)}, ${kind}, ${count(facts.total_bytes)} bytes`,
      `model ${facts.model_id}`, `${facts.tiles} ${facts.tiles === 1 ? "tile" : "tiles"}`, ...extras.filter(Boolean),
    ].join(", ");
  }

  #add(scale, canvas, facts, png, name) {
    const last = this.#levels.at(-1);
    // Small pictures have fewer levels; then the same one comes back for several scales.
    if (last && last.canvas.width === canvas.width && last.canvas.height === canvas.height) this.#levels.pop();
    else byId("levels").tBodies[0].append(this.#row(scale, canvas, facts));
    this.#levels.push({ scale, canvas });
    byId("viewer").hidden = false;
    const slider = byId("level");
    slider.max = this.#levels.length - 1;
    slider.value = slider.max;
    this.#full = [facts.width, facts.height];
    this.#show(this.#levels.length - 1);
    if (scale === 1) offer(byId("view-png"), png, `${stem(name)}.png`);
  }

  #full = [1, 1];

  #row(scale, canvas, facts) {
    // What has to be read for this scale: the sections of it and of every coarser one; the first may serve several.
    const first = Math.min(scale, Math.max(...facts.sections.map((s) => s.scale ?? 1)));
    const needed = facts.sections.filter((s) => s.scale === null || s.scale >= first);
    const bytes = scale === 1 ? facts.total_bytes : needed.reduce((sum, s) => sum + s.length, 0);
    return element("tr", {}, element("td", {}, `1/${scale}`), element("td", {}, `${canvas.width} × ${canvas.height}`),
      element("td", {}, count(bytes)), element("td", {}, `${((100 * bytes) / facts.total_bytes).toFixed(1)} %`));
  }

  #show(index) {
    const { scale, canvas } = this.#levels[index];
    const shown = byId("level-picture");
    // Drawn at full size, so that the picture stays in place while it sharpens.
    [shown.width, shown.height] = this.#full;
    const context = shown.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(canvas, 0, 0, canvas.width * scale, canvas.height * scale);
    const text = `1/${scale}, ${canvas.width} × ${canvas.height} pixels`;
    byId("level-value").textContent = text;
    byId("level").setAttribute("aria-valuetext", text);
  }
}

