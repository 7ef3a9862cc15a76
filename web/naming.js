// What a detection is compared with, how close it must come to get a name, and how sure the name is then.

import { byClass, mean } from "./lessons.js";

/** @import { Profile } from "./profile.js" */

/**
 * @typedef {object} Compared what the graph takes, a row for each prototype
 * @property {Float32Array} prototypes
 * @property {number} width of a row
 * @property {number[]} coarse
 * @property {number[]} objects
 * @property {number[]} compete how many different rows a detection is compared with where this one may be the nearest
 */

/**
 * @param {Profile} profile
 * @param {number} width of an embedding
 * @returns {Compared}
 */
export function compared({ learner, prototypes, names }, width) {
  const meansOf = learner === "protonet" || learner === "simpleshot";
  const means = meansOf ? names.map((_, own) => mean(prototypes.filter((row) => row.personal === own))) : [];
  const table = new Float32Array(prototypes.length * width);
  for (const [at, row] of prototypes.entries()) table.set(meansOf ? means[row.personal] : row.vector, at * width);
  const compete = prototypes.map(({ coarse }) => {
    if (byClass(learner)) return prototypes.filter((row) => row.coarse === coarse).length;
    return meansOf ? names.length : prototypes.length;
  });
  return {
    prototypes: table,
    width,
    compete,
    coarse: prototypes.map((row) => row.coarse),
    objects: prototypes.map((row) => row.personal),
  };
}

/**
 * The closeness above which a detection gets a name: the lowest that lets at most this share of strangers through.
 * @param {ArrayLike<number>} strangers how close others come, ascending
 * @param {number} rate above 0 and below 1
 * @param {number} objects that compete
 */
export function acceptAbove(strangers, rate, objects) {
  const above = Math.max(accepted(strangers.length, rate, objects), 1);
  return strangers.length ? strangers[strangers.length - above] : -1;
}

/**
 * How sure it is that a detection is no stranger: the share of strangers that come less close.
 * @param {ArrayLike<number>} strangers ascending
 * @param {number} closeness
 */
export function certainty(strangers, closeness) {
  let [low, high] = [0, strangers.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (strangers[middle] < closeness) low = middle + 1;
    else high = middle;
  }
  return low / (strangers.length + 1);
}

/**
 * What a person should know where so few strangers do not support the rate, in the words of the command line.
 * @param {number} strangers
 * @param {number} rate
 * @param {number} objects that compete
 * @returns {string} empty where they do
 */
export function shortfall(strangers, rate, objects) {
  if (!objects || accepted(strangers, rate, objects)) return "";
  const least = Math.ceil(objects / rate - 1e-9) - 1;
  const kept = Math.min(1, objects / (strangers + 1));
  if (kept <= rate) return "";
  return (
    `a false-accept rate of ${rate} for ${objects} competing prototype${objects > 1 ? "s" : ""} needs ${least} or more ` +
    `strangers, and the student has ${strangers}: names are given at the strictest threshold there is, which keeps a rate ` +
    `of ${Number(kept.toPrecision(2))}; distil with more validation images for a lower one`
  );
}

/** @param {number} strangers @param {number} rate @param {number} objects */
const accepted = (strangers, rate, objects) => Math.floor((rate / objects) * (strangers + 1) + 1e-9);
