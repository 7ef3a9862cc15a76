// What this browser knows: a person's objects with their pictures, and how strict names are. It remembers itself.

import { blake2b } from "./blake2b.js";
import { ask, byId, download } from "./dom.js";
import { PageError } from "./errors.js";
import { acceptAbove, compared, shortfall } from "./naming.js";
import { showObjects } from "./objects.js";
import { checkStudent, emptyProfile, merge, photoCount, remove, rename } from "./profile.js";
import { readProfile, writeProfile } from "./profile-file.js";
import { things } from "./results.js";
import { recall, remember } from "./store.js";

/** @import { Kept } from "./store.js" */
/** @import { Profile } from "./profile.js" */
/** @import { About, Detection, Question } from "./student.js" */

const CONFIDENCE = 0.25; // as the command line's default
const RATES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5];

/** @param {About} about */
const keyOf = ({ student, learner }) => `${student} ${learner}`;

export class Known {
  #windows = new BroadcastChannel("mocha-pipe"); // others of this page

  /**
   * @param {About} about
   * @param {ArrayLike<number>} strangers how close others come, ascending
   * @param {Kept} kept
   * @param {boolean} keeps whether the browser remembers
   * @param {{ changed: () => Promise<unknown>, run: (work: () => unknown) => void }} told
   */
  constructor(about, strangers, kept, keeps, { changed, run }) {
    this.about = about;
    this.strangers = strangers;
    this.keeps = keeps;
    this.#kept = kept;
    this.#changed = changed;
    this.#run = run;
    byId("rate", HTMLInputElement).addEventListener("input", (event) => {
      const place = /** @type {HTMLInputElement} */ (event.target).valueAsNumber;
      run(() => this.#change({ rate: RATES[place] }));
    });
    this.#windows.addEventListener("message", () =>
      run(async () => {
        this.#kept = (await recall(keyOf(about))) ?? this.#kept;
        this.show();
        await changed();
      }),
    );
  }

  #kept;
  #changed;
  #run;

  /**
   * What the browser remembers of this student, or nothing yet.
   * @param {About} about
   * @returns {Promise<{ kept: Kept, keeps: boolean }>}
   */
  static async recall(about) {
    const rate = RATES.includes(about.rate) ? about.rate : 0.05;
    /** @type {Kept} */
    const fresh = { profile: emptyProfile(about), pictures: {}, hidden: [], rate, taken: "" };
    try {
      return { kept: (await recall(keyOf(about))) ?? fresh, keeps: true };
    } catch {
      return { kept: fresh, keeps: false };
    }
  }

  get profile() {
    return this.#kept.profile;
  }

  /** @returns {Question} what the student is asked about every picture */
  question() {
    const { profile, rate } = this.#kept;
    const rows = compared(profile, profile.prototypes[0]?.vector.length ?? 0);
    const thresholds = rows.compete.map((count) => acceptAbove(this.strangers, rate, count));
    return { boxes: [], confidence: CONFIDENCE, compared: rows, thresholds };
  }

  /** @param {Detection[]} detections by the names that are shown */
  name = (detections) => things(detections, this.#kept.profile, this.strangers, this.#kept.hidden);

  /**
   * @param {Profile} profile with one more photo of an object
   * @param {string} name
   * @param {() => Promise<Blob>} picture of it
   */
  async learnt(profile, name, picture) {
    const pictures = this.#kept.pictures[name] ? {} : { [name]: await picture() };
    const hidden = this.#kept.hidden.filter((each) => each !== name);
    await this.#change({ profile, hidden, pictures: { ...this.#kept.pictures, ...pictures } });
  }

  /**
   * @param {File} file
   * @returns {Promise<string>} what was done
   */
  async open(file) {
    const profile = readProfile(await file.arrayBuffer(), file.name);
    checkStudent(profile, this.about);
    const held = profile.names.join(", ") || "no objects";
    const mine = this.profile.names.length;
    const question = `${file.name} holds ${held}. What about the ${mine} here?`;
    const choice = mine ? await ask(question, ["Add to mine", "Replace mine", "Cancel"]) : "Replace mine";
    if (choice === "Cancel") return "";
    await this.#change({ profile: choice === "Add to mine" ? merge(this.profile, profile) : profile });
    return `${file.name}: ${held}`;
  }

  /**
   * Take the objects in that came with the page, once.
   * @param {string} address
   */
  async takeAlong(address) {
    const content = await (await fetch(address)).arrayBuffer();
    const taken = blake2b(new Uint8Array(content));
    if (taken === this.#kept.taken) return;
    const profile = readProfile(content, "profile.safetensors");
    checkStudent(profile, this.about);
    await this.#change({ taken, profile: merge(this.profile, profile) });
  }

  save() {
    download(new Blob([writeProfile(this.profile)]), "profile.safetensors");
  }

  show() {
    const { profile, rate } = this.#kept;
    showObjects(this.#kept, {
      rename: (name) => this.#run(() => this.#rename(name)),
      forget: (name) => this.#run(() => this.#forget(name)),
      show: (name, isShown) => {
        const others = this.#kept.hidden.filter((each) => each !== name);
        this.#run(() => this.#change({ hidden: isShown ? others : [...others, name] }));
      },
    });
    const text = `${Number((100 * rate).toPrecision(2))} %: 1 in ${Math.round(1 / rate)}`;
    const range = byId("rate", HTMLInputElement);
    range.max = String(RATES.length - 1);
    range.value = String(RATES.indexOf(rate));
    range.setAttribute("aria-valuetext", text);
    byId("rate-text", HTMLOutputElement).textContent = text;
    const most = Math.max(0, ...compared(profile, profile.prototypes[0]?.vector.length ?? 0).compete);
    byId("shortfall", HTMLParagraphElement).textContent = shortfall(this.strangers.length, rate, most);
  }

  /** @param {string} old */
  async #rename(old) {
    const field = document.createElement("input");
    field.value = old;
    field.setAttribute("aria-label", "New name");
    if ((await ask(`Another name for ${old}`, ["Rename", "Cancel"], field)) !== "Rename") return;
    const { pictures, hidden } = this.#kept;
    const profile = rename(this.profile, old, field.value.trim());
    const name = profile.names[this.profile.names.indexOf(old)];
    await this.#change({
      profile,
      pictures: pictures[old] ? { ...pictures, [name]: pictures[old] } : pictures,
      hidden: hidden.map((each) => (each === old ? name : each)),
    });
  }

  /** @param {string} name */
  async #forget(name) {
    const count = photoCount(this.profile, name);
    const question = `Forget ${name}, learnt from ${count} photo${count > 1 ? "s" : ""}?`;
    if ((await ask(question, ["Forget", "Keep it"])) === "Forget") await this.#change({ profile: remove(this.profile, name) });
  }

  /** @param {Partial<Kept>} more */
  async #change(more) {
    const kept = { ...this.#kept, ...more };
    const { names } = kept.profile;
    kept.pictures = Object.fromEntries(Object.entries(kept.pictures).filter(([name]) => names.includes(name)));
    kept.hidden = kept.hidden.filter((name) => names.includes(name));
    this.#kept = kept;
    this.show();
    if (this.keeps) {
      await remember(keyOf(this.about), kept).catch(() => {
        throw new PageError("this browser is out of room for objects; save the profile, and free some space");
      });
      this.#windows.postMessage("changed");
    }
    await this.#changed();
  }
}
