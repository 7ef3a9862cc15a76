// The form that gives a thing a name.

import { byId, drawCrop, say } from "./dom.js";
import { PageError } from "./errors.js";
import { overlap } from "./lessons.js";
import { checkName, needsClass, photoCount } from "./profile.js";

/** @import { Profile } from "./profile.js" */
/** @import { Detection } from "./student.js" */

/**
 * @typedef {object} Lesson
 * @property {string} name
 * @property {number[]} box left, top, right, bottom in pixels of the picture
 * @property {number | null} coarse what the user says that it is; null leaves it to the detector
 * @property {Detection | null} chosen the detection whose box it is, if it is one's
 */

export const SAME_OBJECT = 0.5; // IoU from which two boxes are one thing
const SIDES = ["left", "top", "width", "height"];

/**
 * The detector's boxes of a thing, those that overlap it most first.
 * @template {{ box: number[] }} Boxed
 * @param {Boxed[]} detections
 * @param {number[]} box
 * @returns {Boxed[]}
 */
export const boxesOf = (detections, box) =>
  detections
    .map((detection) => ({ detection, share: overlap(detection.box, box) }))
    .filter(({ share }) => share >= SAME_OBJECT)
    .sort((one, other) => other.share - one.share)
    .map(({ detection }) => detection);

export class Teach {
  #form = byId("teach", HTMLFormElement);
  #name = byId("name", HTMLInputElement);
  #class = byId("class", HTMLSelectElement);
  #crop = byId("crop", HTMLCanvasElement);
  #sides = SIDES.map((side) => byId(`box-${side}`, HTMLInputElement));
  /** @type {{ image: ImageBitmap, detections: Detection[], profile: Profile } | null} */
  #about = null;
  /** @type {Detection | null} whose box stands in the fields */
  #chosen = null;
  /** @type {HTMLElement | null} what had the focus before */
  #before = null;

  /**
   * @param {object} told
   * @param {(lesson: Lesson) => Promise<void>} told.done
   * @param {(box: number[]) => void} told.moved
   * @param {() => void} told.closed
   */
  constructor({ done, moved, closed }) {
    this.closed = closed;
    this.moved = moved;
    this.#form.noValidate = true; // the sentences are ours
    this.#form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const lesson = this.#lesson();
        this.#lock(true);
        await done(lesson);
        this.close();
      } catch (error) {
        this.#say(error instanceof PageError ? error.message : `something went wrong: ${error}`);
      } finally {
        this.#lock(false);
      }
    });
    byId("cancel", HTMLButtonElement).addEventListener("click", () => this.close());
    this.#form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
    this.#name.addEventListener("input", () => this.#showName());
    for (const side of this.#sides) side.addEventListener("input", () => this.#showBox());
  }

  get isOpen() {
    return !this.#form.hidden;
  }

  /**
   * @param {{ image: ImageBitmap, detections: Detection[], profile: Profile }} about what the form is about
   * @param {number[]} box
   * @param {{ chosen?: Detection, name?: string }} [told] what is known
   */
  open(about, box, { chosen, name = "" } = {}) {
    this.#about = about;
    this.#chosen = chosen ?? null;
    if (!this.isOpen) this.#before = /** @type {HTMLElement | null} */ (document.activeElement);
    const [left, top, right, bottom] = box;
    [left, top, right - left, bottom - top].forEach((value, at) => {
      this.#sides[at].value = String(Number(value.toFixed(1)));
    });
    this.#name.value = name;
    byId("names", HTMLDataListElement).replaceChildren(...about.profile.names.map((known) => new Option(known, known)));
    this.#class.replaceChildren(
      new Option("choose", ""),
      ...about.profile.classNames.map((text, at) => new Option(text, String(at))),
    );
    this.#say("");
    this.#form.hidden = false;
    this.#showName();
    this.#showBox(true);
    this.#name.focus();
    this.#form.scrollIntoView({ block: "nearest" });
  }

  close() {
    if (!this.isOpen) return;
    this.#form.hidden = true;
    this.#about = null;
    this.closed();
    this.#before?.focus();
  }

  /** @returns {number[]} as it stands in the fields */
  #box() {
    const [left, top, width, height] = this.#sides.map((side) => side.valueAsNumber);
    return [left, top, left + width, top + height];
  }

  /** @returns {Lesson} */
  #lesson() {
    const about = this.#about;
    if (!about) throw new PageError("there is no picture any more; show it again");
    const { image, profile, detections } = about;
    const name = checkName(profile, this.#name.value.trim());
    const box = this.#chosen?.box ?? this.#box();
    const [left, top, right, bottom] = box;
    if (!box.every(Number.isFinite) || right - left < 1 || bottom - top < 1) {
      throw new PageError("a box is left, top, width and height in pixels, 1 or more wide and high; draw it around the thing");
    }
    if (left < 0 || top < 0 || right > image.width || bottom > image.height) {
      throw new PageError(`a box must lie inside the picture, ${image.width} x ${image.height} pixels; make it smaller`);
    }
    const asks = needsClass(profile) && !boxesOf(detections, box).length;
    if (asks && !this.#class.value) {
      throw new PageError("a box has the class of a detection that overlaps it by half or more, found none; say what it is");
    }
    return { name, box, coarse: asks ? Number(this.#class.value) : null, chosen: this.#chosen };
  }

  #showName() {
    const profile = this.#about?.profile;
    const name = this.#name.value.trim().normalize("NFC");
    const isKnown = profile?.names.includes(name);
    const count = profile && isKnown ? photoCount(profile, name) : 0;
    byId("refines", HTMLParagraphElement).textContent = isKnown
      ? `Adds to ${name}, which knows ${count} photo${count > 1 ? "s" : ""}.`
      : "";
  }

  /** @param {boolean} [isNew] it is the box that the form was opened with */
  #showBox(isNew = false) {
    if (!isNew) this.#chosen = null;
    const box = this.#chosen?.box ?? this.#box();
    if (!this.#about || !box.every(Number.isFinite)) return;
    const { image, detections, profile } = this.#about;
    drawCrop(image, box, this.#crop);
    byId("class-choice", HTMLDivElement).hidden = !needsClass(profile) || boxesOf(detections, box).length > 0;
    this.moved(box);
  }

  /** @param {string} text */
  #say = (text) => say(byId("teach-message", HTMLParagraphElement), text);

  /** @param {boolean} isBusy */
  #lock(isBusy) {
    for (const each of this.#form.querySelectorAll("button")) each.disabled = isBusy;
  }
}
