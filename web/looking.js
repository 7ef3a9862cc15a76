// One picture after the other: handed to the student, shown with what was found, and still there to be asked about.

import { byId } from "./dom.js";
import { PageError } from "./errors.js";
import { drawn, showList, words } from "./results.js";

/** @import { Known } from "./known.js" */
/** @import { Thing } from "./results.js" */
/** @import { Live } from "./sources.js" */
/** @import { Backend, Found, Looked, Student } from "./student.js" */
/** @import { View } from "./view.js" */
/** @typedef {{ image: ImageBitmap, source: string, number: number, looked: Looked, found: Found }} Shown */

const SPEED_OVER = 2000; // milliseconds
const SPEAK_EVERY = 3000;
const WAIT = 30; // for a frame that is not there yet

export class Looking {
  /** @type {Shown | null} */
  shown = null;
  /** While a box is drawn and named, the picture stays. */
  isHeld = false;
  /** @type {Live | null} */
  #live = null;
  #isPaused = false;
  /** @type {number[]} when frames were shown */
  #frames = [];
  #spoken = { words: "", at: 0 };
  /** @type {Promise<unknown>} of the pictures before */
  #turn = Promise.resolve();

  /**
   * @param {object} parts
   * @param {Student} parts.student
   * @param {View} parts.view
   * @param {Known} parts.known
   * @param {(thing: Thing) => void} chosen
   */
  constructor({ student, view, known }, chosen) {
    this.student = student;
    this.view = view;
    this.known = known;
    this.chosen = chosen;
  }

  /** @returns {Shown} */
  get current() {
    if (!this.shown) throw new PageError("no picture is there yet; choose one");
    return this.shown;
  }

  things() {
    return this.shown ? this.known.name(this.shown.found.detections) : [];
  }

  /**
   * Look at a still picture.
   * @param {Blob} picture
   * @param {string} source its name
   */
  async look(picture, source) {
    await this.#inTurn(async () => {
      const looked = await this.student.look(picture);
      this.end(); // not before: what cannot be read ends no camera
      const image = createImageBitmap(picture); // while the student looks
      const found = await this.student.detect(looked.frame, this.known.question());
      this.#show({ image: await image, source, number: 0, looked, found });
    });
  }

  /** Look again at what is shown, after something else changed. */
  again = () =>
    this.#inTurn(async () => {
      if (!this.shown) return;
      this.shown.found = await this.student.detect(this.shown.looked.frame, this.known.question());
      this.#paint();
    });

  /**
   * Follow a camera or a video until another picture is chosen.
   * @param {Live} live
   */
  async follow(live) {
    this.end();
    this.#live = live;
    this.pause(false);
    byId("pause", HTMLButtonElement).hidden = false;
    for (let number = 0; live === this.#live && !live.isEnded; ) {
      const frame = this.#isPaused || this.isHeld ? null : await live.frame();
      if (frame) await this.#inTurn(() => this.#step(frame, live, number++));
      else await new Promise((resolve) => setTimeout(resolve, WAIT));
    }
  }

  /** @param {ImageBitmap} frame @param {Live} live @param {number} number */
  async #step(frame, live, number) {
    const image = await createImageBitmap(frame); // the worker takes the other one away
    const looked = await this.student.look(frame);
    const found = await this.student.detect(looked.frame, this.known.question());
    if (this.isHeld || live !== this.#live) image.close();
    else this.#show({ image, source: live.name, number, looked, found });
  }

  end() {
    this.#live?.stop();
    this.#live = null;
    this.#frames = [];
    byId("pause", HTMLButtonElement).hidden = true;
  }

  togglePause = () => this.pause(!this.#isPaused);

  /** @param {boolean} isPaused */
  pause(isPaused) {
    this.#isPaused = isPaused;
    const press = byId("pause", HTMLButtonElement);
    press.setAttribute("aria-pressed", String(isPaused));
    press.textContent = isPaused ? "Go on" : "Pause";
    this.#live?.pause(isPaused);
  }

  /** @param {Backend} backend */
  static showBackend({ name, threads }) {
    const text = threads ? `${name}, ${threads} thread${threads > 1 ? "s" : ""}` : name;
    const state = byId("state", HTMLParagraphElement);
    if (state.textContent !== text) state.textContent = text;
  }

  /** @param {() => Promise<void>} work */
  #inTurn(work) {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  /** @param {Shown} shown */
  #show(shown) {
    this.shown?.image.close();
    this.shown = shown;
    this.#paint();
    if (!performance.getEntriesByName("first-boxes").length) performance.mark("first-boxes");
  }

  #paint() {
    const { image, looked, found } = this.current;
    const now = this.things();
    this.view.show(image, drawn(now));
    showList(byId("found", HTMLUListElement), () => this.things(), this.chosen);
    Looking.showBackend(found.backend);
    this.#showSpeed(looked.letterboxing + found.milliseconds);
    this.#speak(words(now));
  }

  /** @param {number} milliseconds */
  #showSpeed(milliseconds) {
    const now = performance.now();
    this.#frames = [...this.#frames, now].filter((at) => at > now - SPEED_OVER);
    const perSecond = (1000 * (this.#frames.length - 1)) / (now - this.#frames[0]);
    const rate = this.#live && this.#frames.length > 1 ? `, ${perSecond.toFixed(1)} pictures a second` : "";
    byId("speed", HTMLOutputElement).textContent = `${milliseconds.toFixed(0)} ms${rate}`;
  }

  /** @param {string} told to who cannot see it, and not at every frame */
  #speak(told) {
    const now = performance.now();
    if (told === this.#spoken.words || (this.#live && now - this.#spoken.at < SPEAK_EVERY)) return;
    byId("spoken", HTMLParagraphElement).textContent = `Found: ${told}`;
    this.#spoken = { words: told, at: now };
  }
}
