// The picture with what was found on it, and the pointer that draws a box or picks a detection.

import { byId } from "./dom.js";
import { drawFound, frame } from "./draw.js";

/** @import { Drawn } from "./draw.js" */

const CLICK = 5; // pixels of the screen; what moves less draws no box
const PENCIL = "#ffffff";

export class View {
  #view = byId("view", HTMLDivElement);
  #picture = byId("picture", HTMLCanvasElement);
  #overlay = byId("overlay", HTMLCanvasElement);
  /** @type {Drawn[]} */
  #found = [];
  /** @type {number[] | null} the box that is being drawn or named */
  #marked = null;
  /** @type {{ x: number, y: number } | null} where the pointer went down */
  #start = null;

  /**
   * @param {object} told
   * @param {() => void} told.begins the picture must stay from now on
   * @param {(box: number[]) => void} told.drawn left, top, right, bottom in whole pixels of the picture
   * @param {(x: number, y: number) => void} told.clicked
   * @param {() => void} told.cancelled
   */
  constructor({ begins, drawn, clicked, cancelled }) {
    this.#overlay.addEventListener("pointerdown", (event) => {
      if (!this.#picture.width || event.button > 0) return;
      begins();
      this.#overlay.setPointerCapture(event.pointerId);
      this.#start = { x: event.offsetX, y: event.offsetY };
      event.preventDefault();
    });
    this.#overlay.addEventListener("pointermove", (event) => {
      if (this.#start) this.mark(this.#between(this.#start, event));
    });
    this.#overlay.addEventListener("pointerup", (event) => {
      const start = this.#start;
      this.#start = null;
      if (!start) return;
      const moved = Math.max(Math.abs(event.offsetX - start.x), Math.abs(event.offsetY - start.y));
      if (moved < CLICK) clicked(start.x / this.#scale, start.y / this.#scale);
      else drawn(this.#between(start, event));
    });
    this.#overlay.addEventListener("pointercancel", () => {
      this.#start = null;
      cancelled();
    });
    new ResizeObserver(() => this.#paint()).observe(this.#view);
  }

  /**
   * @param {ImageBitmap} image
   * @param {Drawn[]} found
   */
  show(image, found) {
    if (this.#picture.width !== image.width || this.#picture.height !== image.height) {
      this.#picture.width = image.width;
      this.#picture.height = image.height;
      this.#view.style.setProperty("--aspect", String(image.width / image.height));
    }
    this.#picture.getContext("2d")?.drawImage(image, 0, 0);
    this.#found = found;
    const words = found.map(({ label }) => label).join(", ");
    this.#view.setAttribute("aria-label", `Picture of ${image.width} by ${image.height} pixels: ${words || "nothing found"}`);
    this.#paint();
  }

  /** @param {number[] | null} box */
  mark(box) {
    this.#marked = box;
    this.#paint();
  }

  /** Pixels of the screen for each of the picture. */
  get #scale() {
    return this.#overlay.clientWidth / this.#picture.width;
  }

  /** @param {{ x: number, y: number }} start @param {PointerEvent} end */
  #between(start, end) {
    const { width, height } = this.#picture;
    /** @param {number} side @param {number} most */
    const inside = (side, most) => Math.min(Math.max(Math.round(side / this.#scale), 0), most);
    return [
      inside(Math.min(start.x, end.offsetX), width),
      inside(Math.min(start.y, end.offsetY), height),
      inside(Math.max(start.x, end.offsetX), width),
      inside(Math.max(start.y, end.offsetY), height),
    ];
  }

  #paint() {
    const dots = window.devicePixelRatio;
    this.#overlay.width = Math.round(this.#view.clientWidth * dots);
    this.#overlay.height = Math.round(this.#view.clientHeight * dots);
    const context = this.#overlay.getContext("2d");
    if (!context || !this.#picture.width) return;
    const scale = this.#overlay.width / this.#picture.width;
    drawFound(context, this.#found, scale, dots);
    if (this.#marked)
      frame(
        context,
        this.#marked.map((side) => side * scale),
        PENCIL,
        dots,
        false,
      );
  }
}
