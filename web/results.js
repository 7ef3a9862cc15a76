// What was found in a picture: as words, as the list below it, as json and as a drawn picture.

import { button } from "./dom.js";
import { colorOf, drawFound } from "./draw.js";
import { certainty } from "./naming.js";
import { className } from "./profile.js";

/** @import { Profile } from "./profile.js" */
/** @import { Detection } from "./student.js" */
/** @import { Drawn } from "./draw.js" */

/**
 * @typedef {object} Thing a detection under its name
 * @property {Detection} detection
 * @property {string} name
 * @property {number} object index of the name in the profile, -1 where it is none of the user's
 * @property {string} kind what the detector says
 * @property {number} sure share of strangers that look less like the object; 0 without a personal name
 */

const LEAST_SIDE = 800; // of a drawn picture, so that labels can be read

/**
 * @param {Detection[]} detections
 * @param {Profile} profile
 * @param {ArrayLike<number>} strangers
 * @param {string[]} hidden names that are not shown
 * @returns {Thing[]}
 */
export function things(detections, profile, strangers, hidden) {
  return detections
    .map((detection) => {
      const object = detection.row < 0 ? -1 : profile.prototypes[detection.row].personal;
      const kind = className(profile, detection.coarse);
      const name = object < 0 ? kind : profile.names[object];
      return { detection, name, object, kind, sure: object < 0 ? 0 : certainty(strangers, detection.closeness) };
    })
    .filter(({ object, name }) => object < 0 || !hidden.includes(name));
}

/** @param {Thing[]} found @returns {Drawn[]} */
export const drawn = (found) =>
  found.map(({ detection, name, object, kind }) => ({
    box: detection.box,
    label: `${object < 0 ? name : `${name} (${kind})`} ${detection.score.toFixed(2)}`,
    color: colorOf(object),
    isMine: object >= 0,
  }));

/** @param {Thing[]} found one sentence */
export function words(found) {
  const mine = found.filter(({ object }) => object >= 0).map(({ name }) => name);
  /** @type {Map<string, number>} */
  const others = new Map();
  for (const { name, object } of found) if (object < 0) others.set(name, (others.get(name) ?? 0) + 1);
  const rest = [...others].map(([name, count]) => (count === 1 ? name : `${count} times ${name}`));
  return [...mine, ...rest].join(", ") || "nothing";
}

/**
 * As `mocha-pipe detect --json` prints a picture.
 * @param {{ source: string, number: number, width: number, height: number, seconds: number }} picture
 * @param {Thing[]} found
 */
export function asJson({ source, number, width, height, seconds }, found) {
  /** @param {number} value @param {number} digits */
  const rounded = (value, digits) => Number(value.toFixed(digits));
  const boxes = found.map(({ detection, name, object, kind, sure }) => ({
    xyxy: detection.box.map((side) => rounded(side, 2)),
    name,
    personal: object >= 0,
    class: kind,
    confidence: rounded(detection.score, 4),
    certainty: rounded(sure, 4),
  }));
  return { source, frame: number, width, height, seconds: rounded(seconds, 4), boxes };
}

/**
 * @param {ImageBitmap} image
 * @param {Thing[]} found
 * @returns {Promise<Blob>} PNG
 */
export function asPicture(image, found) {
  const scale = Math.max(1, LEAST_SIDE / Math.max(image.width, image.height));
  const canvas = new OffscreenCanvas(Math.round(image.width * scale), Math.round(image.height * scale));
  const context = /** @type {any} */ (canvas.getContext("2d"));
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  drawFound(context, drawn(found), canvas.width / image.width, Math.max(1, canvas.width / 900));
  return canvas.convertToBlob({ type: "image/png" });
}

/**
 * The list below the picture. Rows stay where they are, so that a button keeps the focus while frames go by.
 * @param {HTMLUListElement} list
 * @param {() => Thing[]} current
 * @param {(thing: Thing) => void} chosen
 */
export function showList(list, current, chosen) {
  const found = current();
  while (list.children.length > found.length) list.lastElementChild?.remove();
  while (list.children.length < found.length) {
    const at = list.children.length;
    const row = document.createElement("li");
    const mark = document.createElement("span");
    mark.className = "mark";
    row.append(
      mark,
      document.createElement("span"),
      button("Name ...", () => chosen(current()[at])),
    );
    list.append(row);
  }
  found.forEach(({ detection, name, object, kind, sure }, at) => {
    const [mark, text, press] = /** @type {HTMLElement[]} */ ([...list.children[at].children]);
    mark.style.backgroundColor = object < 0 ? "" : colorOf(object);
    mark.classList.toggle("other", object < 0);
    const certain = object < 0 ? "" : `, closer than ${(100 * sure).toFixed(1)} % of strangers`;
    text.textContent = `${object < 0 ? name : `${name} (${kind})`}, confidence ${detection.score.toFixed(2)}${certain}`;
    press.textContent = object < 0 ? "Name ..." : "Another photo ...";
    press.setAttribute("aria-label", object < 0 ? `Name this ${name}` : `Teach ${name} by this picture too`);
  });
}
