// A person's objects, as the command line keeps them. A change makes a new profile; the old one stays as it was.

import { PageError } from "./errors.js";
import { absorb, asKept, byClass, isSame, total } from "./lessons.js";

/** @import { LearnerName, Lesson, Prototype } from "./lessons.js" */

/**
 * @typedef {object} Profile
 * @property {string} student digest of the student that made the embeddings
 * @property {LearnerName} learner
 * @property {string[]} classNames the student's classes
 * @property {string[]} names of the objects
 * @property {Prototype[]} prototypes
 * @property {Lesson[]} lessons
 */

export const MOST_LETTERS = 100;
export const NO_CLASS = "none";
const JOINERS = "\u200c\u200d"; // Persian, Sinhala and emoji are spelt with them

/**
 * @param {{ student: string, learner: LearnerName, classNames: string[] }} about
 * @returns {Profile}
 */
export function emptyProfile({ student, learner, classNames }) {
  return { student, learner, classNames, names: [], prototypes: [], lessons: [] };
}

/**
 * The profile with one more photo of an object; a photo and box that it was learnt from before counts once.
 * @param {Profile} profile
 * @param {string} name
 * @param {{ embedding: Float32Array, coarse: number, photo: string, box: number[] }} shown
 * @returns {Profile}
 */
export function add(profile, name, { embedding, coarse, photo, box }) {
  const { learner } = profile;
  const spelt = checkName(profile, name);
  const names = profile.names.includes(spelt) ? profile.names : [...profile.names, spelt];
  const personal = names.indexOf(spelt);
  const vector = asKept(learner, embedding);
  const lesson = { vector, coarse, personal, count: 1, photo, box: box.map(Math.fround) };
  const place = profile.lessons.findIndex((known) => isSame(known, lesson, false));
  if (place < 0) {
    const prototypes = absorb(learner, profile.prototypes, [lesson]);
    return { ...profile, names, prototypes, lessons: [...profile.lessons, lesson] };
  }
  const lessons = profile.lessons.with(place, lesson);
  const others = profile.prototypes.filter((row) => row.personal !== personal);
  const own = lessons.filter((row) => row.personal === personal);
  return { ...profile, names, lessons, prototypes: absorb(learner, others, own) };
}

/**
 * @param {Profile} profile
 * @param {string} name
 * @returns {Profile}
 */
export function remove(profile, name) {
  const gone = profile.names.indexOf(name);
  /** @template {Prototype} Row @param {Row[]} rows @returns {Row[]} */
  const without = (rows) =>
    rows
      .filter((row) => row.personal !== gone)
      .map((row) => ({ ...row, personal: row.personal - (row.personal > gone ? 1 : 0) }));
  const { names, prototypes, lessons } = profile;
  return { ...profile, names: names.toSpliced(gone, 1), prototypes: without(prototypes), lessons: without(lessons) };
}

/**
 * @param {Profile} profile
 * @param {string} old
 * @param {string} wanted
 * @returns {Profile}
 */
export function rename(profile, old, wanted) {
  const name = wanted.normalize("NFC");
  if (name === old) return profile;
  if (profile.names.includes(name)) {
    throw new PageError(
      `a name belongs to one object, found a '${name}' already; choose another name, or first forget that object`,
    );
  }
  return { ...profile, names: profile.names.with(profile.names.indexOf(old), checkName(profile, name)) };
}

/**
 * The objects of both; two of one name become one, and a photo and box that both know counts once.
 * @param {Profile} profile
 * @param {Profile} other of the same student and learner
 * @returns {Profile}
 */
export function merge(profile, other) {
  const { learner } = profile;
  const spelt = other.names.map((name) => checkName(profile, name));
  const names = [...new Set([...profile.names, ...spelt])];
  /** @template {Prototype} Row @param {Row} row @returns {Row} */
  const moved = (row) => ({ ...row, personal: names.indexOf(spelt[row.personal]) });
  const shared = new Set();
  /** @type {Lesson[]} */
  const fresh = [];
  /** @type {Lesson[]} */
  const seen = [];
  for (const lesson of other.lessons.map(moved)) {
    const again =
      profile.lessons.some((known) => isSame(known, lesson, true)) || seen.some((known) => isSame(known, lesson, false));
    seen.push(lesson);
    if (again) shared.add(lesson.personal);
    else fresh.push(lesson);
  }
  const whole = other.prototypes.map(moved).filter((row) => !shared.has(row.personal));
  const known = absorb(learner, profile.prototypes, whole);
  const prototypes = absorb(
    learner,
    known,
    fresh.filter((lesson) => shared.has(lesson.personal)),
  );
  return { ...profile, names, prototypes, lessons: [...profile.lessons, ...fresh] };
}

/**
 * A name that an object of this profile has or may get, in one spelling.
 * @param {Profile} profile
 * @param {string} text
 */
export function checkName({ names, classNames }, text) {
  const name = text.normalize("NFC");
  if (names.includes(name)) return name;
  const letters = [...name];
  /** @param {string} rule @param {string} found */
  const refused = (rule, found) =>
    new PageError(`the name of an object must ${rule}, found ${found}; write one such as 'my mug'`);
  if (!name || name !== name.trim() || !isShown(name)) {
    throw refused("be printable text without spaces around it", name ? `'${name}'` : "nothing");
  }
  if (letters.length > MOST_LETTERS) throw refused(`have ${MOST_LETTERS} letters or fewer`, `${letters.length}`);
  if (/[/\\]/.test(name)) throw refused("be free of / and \\, which part folders", `'${name}'`);
  if (classNames.some((known) => known.normalize("NFC") === name)) {
    throw new PageError(
      `an object needs a name of its own, '${name}' is what the student calls all of its kind; write one such as 'my ${name}'`,
    );
  }
  return name;
}

/**
 * Whether every letter has a place in print, in whatever script.
 * @param {string} text
 */
export function isShown(text) {
  return [...text].every((letter) => letter === " " || JOINERS.includes(letter) || !/[\p{C}\p{Z}]/u.test(letter));
}

/**
 * How many photos an object was learnt from, by what the student called it in them.
 * @param {Profile} profile
 * @param {string} name
 * @returns {Map<string, number>}
 */
export function photos(profile, name) {
  const personal = profile.names.indexOf(name);
  const counts = new Map();
  for (const row of profile.prototypes.filter((each) => each.personal === personal)) {
    const coarse = className(profile, row.coarse);
    counts.set(coarse, (counts.get(coarse) ?? 0) + row.count);
  }
  return counts;
}

/** @param {Profile} profile @param {string} name */
export const photoCount = (profile, name) =>
  total(profile.prototypes.filter((row) => row.personal === profile.names.indexOf(name)));

/** @param {{ classNames: string[] }} profile @param {number} coarse */
export const className = ({ classNames }, coarse) => classNames[coarse] ?? NO_CLASS;

/**
 * Refuse a profile that does not go with this student.
 * @param {Profile} profile
 * @param {{ student: string, learner: LearnerName }} about
 */
export function checkStudent(profile, about) {
  if (profile.student !== about.student) {
    throw new PageError(
      "a profile must be used with the student that it was learnt with: it has that of student " +
        `${profile.student.slice(0, 12)}, found student ${about.student.slice(0, 12)}; name that one with --student, or ` +
        "learn the objects again with this one: mocha-pipe personalize NAME PHOTO --profile NEW.safetensors",
    );
  }
  if (profile.learner !== about.learner) {
    throw new PageError(
      `the objects of a profile share one learner, this page has ${about.learner}, found ${profile.learner}; ` +
        "open the page with that profile: mocha-pipe web --profile FILE",
    );
  }
}

/** @param {Profile} profile whether the class decides which objects compete */
export const needsClass = ({ learner }) => byClass(learner);
