// What a profile was taught, photo by photo, and the means that follow: the arithmetic of the command line's learners.

/**
 * @typedef {object} Prototype what a detection may be close to
 * @property {Float32Array} vector
 * @property {number} coarse class of the student; the number of its classes stands for none
 * @property {number} personal index of the object's name
 * @property {number} count photos that it is the mean of
 */
/**
 * @typedef {Prototype & { box: number[], photo: string }} Lesson one photo of an object: left, top, right, bottom there, and the
 * digest of its file, "" where nobody knows
 */
/** @typedef {"conditional" | "gallery" | "protonet" | "simpleshot"} LearnerName */

export const LEARNERS = ["conditional", "protonet", "simpleshot", "gallery"];
const SAME_BOX_IOU = 0.9;

/**
 * Whether an object is only looked for under the class that it was learnt with.
 * @param {LearnerName} learner
 */
export const byClass = (learner) => learner === "conditional";

/**
 * An embedding as a learner keeps it.
 * @param {LearnerName} learner
 * @param {Float32Array} embedding
 */
export function asKept(learner, embedding) {
  if (learner !== "gallery" && learner !== "simpleshot") return embedding;
  const norm = Math.hypot(...embedding);
  return norm ? embedding.map((value) => value / norm) : embedding;
}

/**
 * Known prototypes and more of them: one mean for each class and object; a gallery keeps every row.
 * @param {LearnerName} learner
 * @param {Prototype[]} known
 * @param {Prototype[]} more
 * @returns {Prototype[]} sorted by class, then object
 */
export function absorb(learner, known, more) {
  const rows = [...known, ...more]
    .map(({ vector, coarse, personal, count }) => ({ vector, coarse, personal, count }))
    .sort((one, other) => one.coarse - other.coarse || one.personal - other.personal);
  if (learner === "gallery") return rows;
  /** @type {Prototype[][]} */
  const groups = [];
  for (const row of rows) {
    const last = groups.at(-1);
    if (last?.[0].coarse === row.coarse && last[0].personal === row.personal) last.push(row);
    else groups.push([row]);
  }
  return groups.map((group) => ({ ...group[0], vector: mean(group), count: total(group) }));
}

/** @param {Prototype[]} rows */
export const total = (rows) => rows.reduce((sum, row) => sum + row.count, 0);

/**
 * Weighted by the photos behind each row.
 * @param {Prototype[]} rows
 */
export function mean(rows) {
  const sums = new Float64Array(rows[0].vector.length);
  for (const { vector, count } of rows) for (let at = 0; at < sums.length; at++) sums[at] += vector[at] * count;
  return Float32Array.from(sums, (sum) => sum / total(rows));
}

/**
 * Whether both are of one photo and box of one object.
 * @param {Lesson} one
 * @param {Lesson} other
 * @param {boolean} unknownToo equal rows of photos that nobody knows are one as well
 */
export function isSame(one, other, unknownToo) {
  if (one.personal !== other.personal) return false;
  if (other.photo && one.photo === other.photo && overlap(one.box, other.box) > SAME_BOX_IOU) return true;
  if (!unknownToo || (one.photo && other.photo)) return false;
  return (
    one.coarse === other.coarse && one.count === other.count && one.vector.every((value, at) => value === other.vector[at])
  );
}

/**
 * Intersection over union of two boxes.
 * @param {ArrayLike<number>} one left, top, right, bottom
 * @param {ArrayLike<number>} other
 */
export function overlap(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  const areas = [one, other].map((box) => (box[2] - box[0]) * (box[3] - box[1]));
  return (width * height) / (areas[0] + areas[1] - width * height);
}
