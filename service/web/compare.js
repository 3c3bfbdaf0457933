// Two pictures of one size in one place, with a divider between them and zoom to single pixels.

import { element } from "./format.js";

const ZOOMS = [["Fit", 0], ["1:1", 1], ["2:1", 2], ["4:1", 4], ["8:1", 8]];

/** Build the comparison inside an element; `show` gives it the pictures. */
export class Comparison {
  #zoom = 0;

  constructor(home) {
    this.left = element("canvas", { "aria-hidden": "true" });
    this.right = element("canvas", { "aria-hidden": "true" });
    this.sheet = element("div", { class: "sheet" }, this.left, this.right);
    this.stage = element("div", { class: "stage", tabindex: "0", role: "group" }, this.sheet);
    this.divider = element("div", { class: "divider" });
    this.names = [element("span", { class: "side left" }), element("span", { class: "side right" })];
    this.range = element("input", { type: "range", min: "0", max: "100", value: "50", step: "0.5", id: "divider" });
    this.buttons = ZOOMS.map(([name, zoom]) => {
      const button = element("button", { type: "button", class: "button", "aria-pressed": String(zoom === 0) }, name);
      button.addEventListener("click", () => this.#setZoom(zoom));
      return button;
    });
    home.append(
      element("div", { class: "stage-box" }, this.stage, this.divider, ...this.names),
      element("div", { class: "tools" },
        element("label", { class: "grow", for: "divider" }, "Divider ", this.range),
        element("div", { role: "group", "aria-label": "Zoom" }, ...this.buttons)),
    );
    this.range.addEventListener("input", () => this.#place());
    this.stage.addEventListener("scroll", () => this.#place());
    new ResizeObserver(() => this.#fit()).observe(this.stage.parentElement);
    this.#listen(this.divider, () => true);
    // A finger on the picture scrolls it; a mouse has a wheel for that and moves the divider.
    this.#listen(this.stage, (event) => event.pointerType === "mouse" && this.#inside(event));
  }

  /** @param {[string, HTMLCanvasElement]} left @param {[string, HTMLCanvasElement]} right */
  show([leftName, left], [rightName, right]) {
    for (const [own, given] of [[this.left, left], [this.right, right]]) {
      own.width = given.width;
      own.height = given.height;
      own.getContext("2d").drawImage(given, 0, 0);
    }
    this.names[0].textContent = leftName;
    this.names[1].textContent = rightName;
    this.stage.setAttribute("aria-label", `${leftName} on the left, ${rightName} on the right of the divider`);
    this.#fit();
  }

  #setZoom(zoom) {
    this.#zoom = zoom;
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(ZOOMS[i][1] === zoom)));
    this.#fit();
    this.stage.scrollTo((this.stage.scrollWidth - this.stage.clientWidth) / 2, (this.stage.scrollHeight - this.stage.clientHeight) / 2);
  }

  #fit() {
    const { width, height } = this.left;
    const room = Math.min(this.stage.clientWidth / width, (0.68 * innerHeight) / height);
    // Fitting enlarges small pictures by whole factors only, so that pixels stay equal in size.
    const factor = this.#zoom || (room >= 1 ? Math.min(8, Math.floor(room)) : room);
    this.sheet.style.width = `${width * factor}px`;
    this.sheet.style.height = `${height * factor}px`;
    this.sheet.classList.toggle("pixels", factor > 1);
    this.#place();
  }

  #place() {
    const share = this.range.value / 100;
    const [view, sheet] = [this.stage.getBoundingClientRect(), this.sheet.getBoundingClientRect()];
    // The divider stays within what is seen of the picture.
    const [from, to] = [Math.max(view.left, sheet.left), Math.min(view.left + this.stage.clientWidth, sheet.right)];
    const x = from + share * (to - from);
    this.divider.style.left = `${x - view.left}px`;
    // Both are clipped, or the left one would show through transparent pixels of the right one.
    this.left.style.clipPath = `inset(0 ${Math.max(0, sheet.right - x)}px 0 0)`;
    this.right.style.clipPath = `inset(0 0 0 ${Math.max(0, x - sheet.left)}px)`;
    this.range.setAttribute("aria-valuetext", `${Math.round(share * 100)} % from the left`);
  }

  #listen(part, takes) {
    part.addEventListener("pointerdown", (event) => {
      if (!takes(event)) return;
      event.preventDefault();
      part.setPointerCapture(event.pointerId);
      this.#follow(event);
      const follow = (move) => this.#follow(move);
      part.addEventListener("pointermove", follow);
      part.addEventListener("lostpointercapture", () => part.removeEventListener("pointermove", follow), { once: true });
    });
  }

  #inside(event) {
    const view = this.stage.getBoundingClientRect();
    return event.clientX < view.left + this.stage.clientWidth && event.clientY < view.top + this.stage.clientHeight;
  }

  #follow(event) {
    const [view, sheet] = [this.stage.getBoundingClientRect(), this.sheet.getBoundingClientRect()];
    const [from, to] = [Math.max(view.left, sheet.left), Math.min(view.left + this.stage.clientWidth, sheet.right)];
    this.range.value = (100 * (event.clientX - from)) / (to - from);
    this.#place();
  }
}
