// profile.safetensors: every field is checked before it is used, and the same profile makes the same bytes as in Python.

import { PageError } from "./errors.js";
import { absorb, byClass, LEARNERS } from "./lessons.js";
import { isShown, MOST_LETTERS } from "./profile.js";
import { readSafetensors, writeSafetensors } from "./safetensors.js";

/** @import { Profile } from "./profile.js" */
/** @import { LearnerName, Lesson, Prototype } from "./lessons.js" */
/** @import { Content, Kind, Tensor } from "./safetensors.js" */

const KEY = "profile";
const OWN = { prototypes: "F32", coarse: "I64", personal: "I64", counts: "I64" };
const TAUGHT = {
  photo_vectors: "F16",
  photo_coarse: "I64",
  photo_personal: "I64",
  photo_counts: "I64",
  photo_boxes: "F32",
  photo_scales: "F32",
};
const TABLES = ["prototypes", "photo_vectors", "photo_boxes"];
const TINY = 2 ** -126;
const ROUNDING = 2e-3; // of the greatest number, between a mean and that of the photos as they are kept

/**
 * @param {Profile} profile
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function writeProfile({ student, learner, names, classNames, prototypes, lessons }) {
  const about = { format: 1, student, learner, names, class_names: classNames, photos: lessons.map((lesson) => lesson.photo) };
  const width = (prototypes[0] ?? lessons[0])?.vector.length ?? 0;
  const scales = lessons.map(({ vector }) => vector.reduce((most, value) => Math.max(most, Math.abs(value)), TINY));
  const shares = lessons.flatMap(({ vector }, row) => Array.from(vector, (value) => Math.fround(value / scales[row])));
  /** @param {Kind} kind @param {number[]} values @param {number} [columns] @returns {{ kind: Kind, shape: number[], values: number[] }} */
  const tensor = (kind, values, columns) => ({
    kind,
    values,
    shape: columns === undefined ? [values.length] : [columns ? values.length / columns : 0, columns],
  });
  /** @template Row @param {Row[]} rows @param {(row: Row) => number} value */
  const whole = (rows, value) => tensor("I64", rows.map(value));
  return writeSafetensors(
    { [KEY]: pythonJson(about) },
    {
      prototypes: tensor(
        "F32",
        prototypes.flatMap(({ vector }) => [...vector]),
        width,
      ),
      coarse: whole(prototypes, (row) => row.coarse),
      personal: whole(prototypes, (row) => row.personal),
      counts: whole(prototypes, (row) => row.count),
      photo_vectors: tensor("F16", shares, width),
      photo_coarse: whole(lessons, (row) => row.coarse),
      photo_personal: whole(lessons, (row) => row.personal),
      photo_counts: whole(lessons, (row) => row.count),
      photo_boxes: tensor(
        "F32",
        lessons.flatMap((row) => row.box),
        4,
      ),
      photo_scales: tensor("F32", scales),
    },
  );
}

/**
 * @param {ArrayBuffer} buffer
 * @param {string} file its name, for messages
 * @returns {Profile}
 * @throws {PageError} it is no whole profile
 */
export function readProfile(buffer, file) {
  /** @param {string} what @param {string} rule @param {unknown} found */
  const unusable = (what, rule, found) => {
    const said = String(found);
    const shown = isShown(said) ? said : JSON.stringify(said);
    return new PageError(
      `${file}: ${what} of a profile must ${rule}, found ${shown.length > 60 ? `${shown.slice(0, 57)}...` : shown}; bring ` +
        "back a whole copy, or learn the objects again",
    );
  };
  /** @type {Content} */
  let content;
  try {
    content = readSafetensors(buffer);
  } catch (error) {
    throw unusable("file", "be a safetensors file", error instanceof Error ? error.message : error);
  }
  const about = checkAbout(content.metadata[KEY], unusable);
  const { tensors } = content;
  const classes = about.class_names.length + (byClass(about.learner) ? 0 : 1);
  const limits = { names: about.names.length, classes };
  const own = checkTensors(tensors, OWN, limits, unusable);
  const prototypes = rowsOf(own.prototypes, own.coarse, own.personal, own.counts);
  const sorted = absorb("gallery", prototypes, []);
  if (sorted.some((row, at) => row.coarse !== prototypes[at].coarse || row.personal !== prototypes[at].personal)) {
    throw unusable("coarse", "ascend, and `personal` within it", own.coarse.values);
  }
  /** @type {Lesson[]} */
  let lessons;
  if (Object.keys(TAUGHT).some((key) => key in tensors)) {
    lessons = checkLessons(tensors, about, limits, unusable);
    checkTaught(absorb(about.learner, [], lessons), prototypes, unusable);
  } else {
    lessons = prototypes.map((row) => ({ ...row, box: [0, 0, 0, 0], photo: "" })); // of versions that kept no more
  }
  // An accent spelt in two ways made two objects of one.
  const spelt = about.names.map((name) => name.normalize("NFC"));
  const names = [...new Set(spelt)];
  /** @template {Prototype} Row @param {Row} row @returns {Row} */
  const moved = (row) => ({ ...row, personal: names.indexOf(spelt[row.personal]) });
  return {
    student: about.student,
    learner: about.learner,
    classNames: about.class_names,
    names,
    prototypes: absorb(about.learner, [], prototypes.map(moved)),
    lessons: lessons.map(moved),
  };
}

/** @typedef {(what: string, rule: string, found: unknown) => PageError} Refusal */
/** @typedef {{ format: number, student: string, learner: LearnerName, names: string[], class_names: string[], photos: string[] }} About */

/**
 * @param {string | undefined} text
 * @param {Refusal} unusable
 * @returns {About}
 */
function checkAbout(text, unusable) {
  if (typeof text !== "string") throw unusable("metadata", `have the key '${KEY}'`, "none");
  /** @type {any} */
  let about;
  try {
    about = JSON.parse(text);
  } catch {
    throw unusable("metadata", "be there and in order", text);
  }
  /** @param {unknown} value @param {(text: string) => boolean} fits */
  const texts = (value, fits) => Array.isArray(value) && value.every((each) => typeof each === "string" && fits(each));
  about.photos ??= [];
  /** @type {[string, string, boolean][]} */
  const rules = [
    ["format", "be 1", about.format === 1],
    ["student", "be a digest", typeof about.student === "string" && /^[0-9a-f]{64}$/.test(about.student)],
    ["learner", `be one of ${LEARNERS.join(", ")}`, LEARNERS.includes(about.learner)],
    [
      "names",
      `be texts of 1 to ${MOST_LETTERS} letters`,
      texts(about.names, (name) => name !== "" && [...name].length <= MOST_LETTERS),
    ],
    ["class_names", "be texts", texts(about.class_names, (name) => name !== "")],
    ["photos", "be digests", texts(about.photos, (digest) => /^([0-9a-f]{32})?$/.test(digest))],
  ];
  for (const [field, rule, fits] of rules) if (!fits) throw unusable(field, rule, JSON.stringify(about[field]));
  if (new Set(about.names).size < about.names.length) throw unusable("names", "differ from each other", about.names);
  const hidden = about.names.find((/** @type {string} */ name) => !isShown(name));
  if (hidden) throw unusable("names", "be printable text", hidden);
  return about;
}

/**
 * Kind, length and range of every tensor.
 * @template {Record<string, string>} Kinds
 * @param {Record<string, Tensor>} tensors
 * @param {Kinds} kinds
 * @param {{ names: number, classes: number }} limits
 * @param {Refusal} unusable
 * @returns {Record<keyof Kinds, Tensor>}
 */
function checkTensors(tensors, kinds, { names, classes }, unusable) {
  const [first, coarse, personal, counts] = Object.keys(kinds);
  for (const [key, kind] of Object.entries(kinds)) {
    const dimensions = TABLES.includes(key) ? 2 : 1;
    const found = key in tensors ? `${tensors[key].kind} [${tensors[key].shape}]` : "none";
    if (tensors[key]?.kind !== kind || tensors[key].shape.length !== dimensions) {
      throw unusable(key, `be ${kind} in ${dimensions} dimensions`, found);
    }
    if (tensors[key].shape[0] !== tensors[first].shape[0])
      throw unusable(key, `have ${tensors[first].shape[0]} rows as the ${first}`, found);
    if (!tensors[key].values.every(Number.isFinite)) throw unusable(key, "be finite", "some that are not");
  }
  /** @param {string} key */
  const different = (key) => [...new Set(tensors[key].values)].sort((one, other) => one - other);
  if (String(different(personal)) !== String([...Array(names).keys()])) {
    throw unusable(personal, "index the names, each at least once", different(personal));
  }
  if (different(coarse).some((value) => value < 0 || value >= classes))
    throw unusable(coarse, "index the class names", different(coarse));
  if (different(counts).some((value) => value < 1)) throw unusable(counts, "be 1 or more", different(counts)[0]);
  return /** @type {Record<keyof Kinds, Tensor>} */ (tensors);
}

/**
 * @param {Record<string, Tensor>} tensors
 * @param {About} about
 * @param {{ names: number, classes: number }} limits
 * @param {Refusal} unusable
 * @returns {Lesson[]}
 */
function checkLessons(tensors, about, limits, unusable) {
  const taught = checkTensors(tensors, TAUGHT, limits, unusable);
  if (taught.photo_boxes.shape[1] !== 4) throw unusable("photo_boxes", "have 4 columns", `[${taught.photo_boxes.shape}]`);
  const count = taught.photo_boxes.shape[0];
  if (about.photos.length !== count) throw unusable("photos", `have ${count} entries as the photo_boxes`, about.photos.length);
  const rows = rowsOf(taught.photo_vectors, taught.photo_coarse, taught.photo_personal, taught.photo_counts);
  return rows.map((row, at) => ({
    ...row,
    vector: row.vector.map((share) => share * taught.photo_scales.values[at]),
    box: [...taught.photo_boxes.values.slice(4 * at, 4 * at + 4)],
    photo: about.photos[at],
  }));
}

/**
 * Prototypes that are not what the photos teach belong to another profile.
 * @param {Prototype[]} taught
 * @param {Prototype[]} found
 * @param {Refusal} unusable
 */
function checkTaught(taught, found, unusable) {
  const near =
    ROUNDING * found.reduce((most, { vector }) => vector.reduce((high, value) => Math.max(high, Math.abs(value)), most), 0);
  const equal =
    taught.length === found.length &&
    taught.every(
      (row, at) =>
        ["coarse", "personal", "count"].every((key) => Reflect.get(row, key) === Reflect.get(found[at], key)) &&
        row.vector.length === found[at].vector.length &&
        row.vector.every((value, column) => Math.abs(value - found[at].vector[column]) <= near),
    );
  if (!equal) throw unusable("prototypes", "be what its photos teach", "something else");
}

/**
 * @param {Tensor} table
 * @param {Tensor} coarse
 * @param {Tensor} personal
 * @param {Tensor} counts
 * @returns {Prototype[]}
 */
function rowsOf(table, coarse, personal, counts) {
  const [count, width] = table.shape;
  return Array.from({ length: count }, (_, at) => ({
    vector: Float32Array.from(table.values.slice(at * width, (at + 1) * width)),
    coarse: coarse.values[at],
    personal: personal.values[at],
    count: counts.values[at],
  }));
}

/**
 * Json as Python writes it: a space behind every comma and colon.
 * @param {unknown} value
 * @returns {string}
 */
function pythonJson(value) {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${pythonJson(each)}`);
  return `{${entries.join(", ")}}`;
}
