// An object is learnt from a box of a picture, as `mocha-pipe personalize` learns it, and looked for in the same picture.

import { PageError } from "./errors.js";
import { compared } from "./naming.js";
import { add, className, needsClass } from "./profile.js";
import { boxesOf } from "./teach.js";

/** @import { Profile } from "./profile.js" */
/** @import { Student } from "./student.js" */
/** @import { Lesson } from "./teach.js" */
/** @import { Thing } from "./results.js" */

const ALIKE = 0.99; // cosine from which two objects are hardly two

/**
 * @param {Student} student
 * @param {number} frame number of the picture
 * @param {Profile} profile
 * @param {Lesson} lesson
 * @param {number} confidence
 * @returns {Promise<Profile>}
 */
export async function learn(student, frame, profile, { name, box, coarse, chosen }, confidence) {
  // Nothing has a name in this pass, so that no detection gives way to another of its name.
  const { detections, regions } = await student.detect(frame, { boxes: [box], confidence });
  const own = boxesOf(detections, box);
  const detection = chosen && (own.find((each) => each.coarse === chosen.coarse) ?? own[0]);
  const said = detection?.coarse ?? coarse ?? own[0]?.coarse ?? profile.classNames.length;
  if (needsClass(profile) && said === profile.classNames.length) {
    throw new PageError("a box has the class of a detection that overlaps it by half or more, found none; say what it is");
  }
  const embedding = detection?.embedding ?? regions[0];
  return add(profile, name, { embedding, coarse: said, photo: await student.digest(frame), box: detection?.box ?? box });
}

/**
 * What may keep an object from being found again, by what the detector makes of this very picture.
 * @param {Profile} profile with the object
 * @param {string} name
 * @param {Lesson} lesson
 * @param {Thing[]} found in the picture, by the names of this profile
 * @returns {string[]}
 */
export function warnings(profile, name, lesson, found) {
  const here = boxesOf(
    found.map((thing) => ({ ...thing, box: thing.detection.box })),
    lesson.box,
  );
  const own = profile.names.indexOf(name);
  const kinds = new Set(profile.prototypes.filter((row) => row.personal === own).map((row) => className(profile, row.coarse)));
  const told = [];
  if (!here.length) told.push(`The detector boxes nothing there, and ${name} is found only where it does.`);
  else if (needsClass(profile) && !here.some(({ kind }) => kinds.has(kind))) {
    told.push(`The detector says ${here[0].kind} there, and ${name} is looked for where it says ${[...kinds].join(" or ")}.`);
  } else if (!here.some((thing) => thing.name === name && thing.object === own)) {
    const other = here.find(({ object }) => object >= 0);
    told.push(
      other
        ? `What the detector boxes there is called ${other.name}, to which it is closer; show ${name} in more photos.`
        : `What the detector boxes there is not close enough to what was learnt to be called ${name}; show it in more photos, or click what was found.`,
    );
  }
  const alike = lookAlike(profile, own);
  if (alike) told.push(`${name} looks like ${alike}: is it one object under two names? Forget one of them then.`);
  return told;
}

/** @param {Profile} profile @param {number} own */
function lookAlike(profile, own) {
  const width = profile.prototypes[0].vector.length;
  const { prototypes, objects } = compared(profile, width);
  const rows = objects.map((_, at) => prototypes.subarray(at * width, (at + 1) * width));
  /** @param {Float32Array} one @param {Float32Array} other */
  const product = (one, other) => one.reduce((sum, value, at) => sum + value * other[at], 0);
  for (const [at, row] of rows.entries()) {
    if (objects[at] !== own) continue;
    const twin = rows.findIndex(
      (other, place) =>
        objects[place] !== own && product(row, other) > ALIKE * Math.sqrt(product(row, row) * product(other, other)),
    );
    if (twin >= 0) return profile.names[objects[twin]];
  }
  return "";
}
