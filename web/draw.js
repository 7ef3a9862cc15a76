// Detections on a picture: yours in colours that are told apart by everyone, others dashed under the name of their kind.

import { overlap } from "./lessons.js";

/** @typedef {{ box: number[], label: string, color: string, isMine: boolean }} Drawn */

/** Okabe and Ito's, without black. */
const COLORS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const OTHERS = "#ffffff";

/** @param {number} object its index; -1 is none of yours */
export const colorOf = (object) => (object < 0 ? OTHERS : COLORS[object % COLORS.length]);

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Drawn[]} found
 * @param {number} scale pixels of the canvas for each of the picture
 * @param {number} unit pixels of the canvas for one of the screen
 */
export function drawFound(context, found, scale, unit) {
  context.save();
  context.font = `600 ${14 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  /** @type {number[][]} where labels stand, left, top, right, bottom */
  const taken = [];
  const placed = found
    .toSorted((one, other) => Number(other.isMine) - Number(one.isMine))
    .map(({ box, label, ...look }) => {
      const sides = box.map((side) => side * scale);
      const [left, top, , bottom] = sides;
      const [width, height] = [context.measureText(label).width + 10 * unit, 20 * unit];
      const x = Math.max(0, Math.min(left, context.canvas.width - width));
      const places = [top - height, bottom, top, bottom - height].filter((y) => y >= 0 && y + height <= context.canvas.height);
      const free = places.find((y) => taken.every((other) => !overlap(other, [x, y, x + width, y + height])));
      const y = free ?? places[0] ?? 0;
      taken.push([x, y, x + width, y + height]);
      return { ...look, sides, label, x, y, width, height };
    });
  for (const { sides, label, color, isMine, x, y, width, height } of placed.toReversed()) {
    frame(context, sides, color, unit, !isMine);
    context.fillStyle = isMine ? color : "#000000b0";
    context.fillRect(x, y, width, height);
    context.fillStyle = isMine && isLight(color) ? "#000" : "#fff";
    context.fillText(label, x + 5 * unit, y + height / 2 + unit);
  }
  context.restore();
}

/**
 * A box that is seen on any ground: its colour inside a dark line.
 * @param {CanvasRenderingContext2D} context
 * @param {number[]} box
 * @param {string} color
 * @param {number} unit
 * @param {boolean} isDashed
 */
export function frame(context, [left, top, right, bottom], color, unit, isDashed) {
  context.setLineDash(isDashed ? [6 * unit, 5 * unit] : []);
  for (const [width, stroke] of /** @type {[number, string][]} */ ([
    [isDashed ? 3.5 : 5, "#000000a0"],
    [isDashed ? 1.5 : 3, color],
  ])) {
    context.lineWidth = width * unit;
    context.strokeStyle = stroke;
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.setLineDash([]);
}

/** @param {string} color */
function isLight(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}
