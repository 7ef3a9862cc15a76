// What enters the network: a picture, resized as OpenCV does it to the last bit, in the middle of a grey square.

const GREY = 114;
const BYTE_SHARES = Float32Array.from({ length: 256 }, (_, value) => value / 255);

/**
 * @typedef {object} Letterboxed
 * @property {Float32Array} image 3 x size x size, red first, 0..1
 * @property {Float32Array} area left, top, right, bottom of the picture in the square
 */

/**
 * @param {Uint8Array | Uint8ClampedArray} rgba 4 bytes a pixel, row by row
 * @param {number} width
 * @param {number} height
 * @param {number} size side of the square
 * @returns {Letterboxed}
 */
export function letterbox(rgba, width, height, size) {
  const gain = Math.min(size / height, size / width);
  const rows = Math.max(1, roundEven(height * gain));
  const columns = Math.max(1, roundEven(width * gain));
  const top = roundEven((size - rows) / 2 - 0.1);
  const left = roundEven((size - columns) / 2 - 0.1);
  const small = resized(rgba, width, height, columns, rows);
  const plane = size * size;
  const image = new Float32Array(3 * plane).fill(BYTE_SHARES[GREY]);
  for (let y = 0; y < rows; y++) {
    let to = (top + y) * size + left;
    for (let from = 3 * y * columns; from < 3 * (y + 1) * columns; from += 3, to++) {
      image[to] = BYTE_SHARES[small[from]];
      image[to + plane] = BYTE_SHARES[small[from + 1]];
      image[to + 2 * plane] = BYTE_SHARES[small[from + 2]];
    }
  }
  return { image, area: Float32Array.of(left, top, left + columns, top + rows) };
}

/**
 * `cv2.resize` with bilinear interpolation, without what is transparent.
 * @param {Uint8Array | Uint8ClampedArray} rgba 4 bytes a pixel
 * @param {number} width
 * @param {number} height
 * @param {number} columns
 * @param {number} rows
 * @returns {Uint8Array} 3 bytes a pixel
 */
export function resized(rgba, width, height, columns, rows) {
  const out = new Uint8Array(3 * columns * rows);
  if (width === 2 * columns && height === 2 * rows) {
    for (let y = 0, to = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const from = 4 * (2 * y * width + 2 * x);
        for (let band = 0; band < 3; band++, to++) {
          const at = from + band;
          out[to] = (rgba[at] + rgba[at + 4] + rgba[at + 4 * width] + rgba[at + 4 * width + 4] + 2) >> 2;
        }
      }
    }
    return out;
  }
  const down = ends(height, rows, false);
  const across = ends(width, columns, true);
  // A row of the picture, resized across, serves two rows below each other: the last two are kept.
  const lines = [new Int32Array(3 * columns), new Int32Array(3 * columns)];
  const held = [-1, -1];
  /** @param {number} y @param {number} other the line that must stay */
  const line = (y, other) => {
    const known = held.indexOf(y);
    if (known >= 0) return known;
    const place = other === 0 ? 1 : 0;
    const target = lines[place];
    for (let x = 0, to = 0; x < columns; x++) {
      const low = 4 * (y * width + across.low[x]);
      const high = 4 * (y * width + across.high[x]);
      for (let band = 0; band < 3; band++, to++) {
        target[to] = (rgba[low + band] * across.lowWeight[x] + rgba[high + band] * across.highWeight[x]) >> 4;
      }
    }
    held[place] = y;
    return place;
  };
  for (let y = 0, to = 0; y < rows; y++) {
    const first = line(down.low[y], held.indexOf(down.high[y]));
    const second = line(down.high[y], first);
    const [above, below] = [lines[first], lines[second]];
    const [aboveWeight, belowWeight] = [down.lowWeight[y], down.highWeight[y]];
    for (let at = 0; at < 3 * columns; at++, to++) {
      out[to] = (((above[at] * aboveWeight) >> 16) + ((below[at] * belowWeight) >> 16) + 2) >> 2;
    }
  }
  return out;
}

/**
 * Between which two pixels each one of the result lies, and the weights of both, of 2048 together.
 * @param {number} length pixels before
 * @param {number} count pixels after
 * @param {boolean} across OpenCV takes the edge alone at the ends of a row, but not at those of a column
 */
function ends(length, count, across) {
  const low = new Int32Array(count);
  const high = new Int32Array(count);
  const lowWeight = new Int32Array(count);
  const highWeight = new Int32Array(count);
  const step = 1 / (count / length);
  for (let index = 0; index < count; index++) {
    const place = Math.fround((index + 0.5) * step - 0.5);
    const before = Math.floor(place);
    let share = Math.fround(place - before);
    if (across && (before < 0 || before >= length - 1)) share = 0;
    low[index] = Math.min(Math.max(before, 0), length - 1);
    high[index] = Math.min(Math.max(before + 1, 0), length - 1);
    lowWeight[index] = roundEven(Math.fround(1 - share) * 2048);
    highWeight[index] = roundEven(share * 2048);
  }
  return { low, high, lowWeight, highWeight };
}

/**
 * As Python rounds: halves to the even neighbour.
 * @param {number} value
 */
export function roundEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest === 0.5) return floor % 2 === 0 ? floor : floor + 1;
  return Math.floor(value + 0.5);
}
