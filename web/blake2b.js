// BLAKE2b (RFC 7693), 16 bytes of it: how the command line knows a photo again. Browsers bring no such function.
// A number of 64 bits is two of 32 bits, the low one first.

const INITIAL = Int32Array.of(
  0xf3bcc908,
  0x6a09e667,
  0x84caa73b,
  0xbb67ae85,
  0xfe94f82b,
  0x3c6ef372,
  0x5f1d36f1,
  0xa54ff53a,
  0xade682d1,
  0x510e527f,
  0x2b3e6c1f,
  0x9b05688c,
  0xfb41bd6b,
  0x1f83d9ab,
  0x137e2179,
  0x5be0cd19,
);
const ORDER = [
  "0123456789abcdef",
  "ea489fd61c02b753",
  "b8c052fdae367194",
  "7931dcbe265a40f8",
  "905724afe1bc683d",
  "2c6a0b834d75fe19",
  "c51fed4a0763928b",
  "db7ec13950f4862a",
  "6fe9b308c2d714a5",
  "a2847615fb9e3cd0",
  "0123456789abcdef",
  "ea489fd61c02b753",
].map((row) => Array.from(row, (digit) => 2 * Number.parseInt(digit, 16)));
const QUARTERS = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14],
].map((row) => row.map((place) => 2 * place));
const BLOCK = 128;
const LENGTH = 16;
const v = new Int32Array(32); // signed: engines keep such numbers unboxed
const message = new Int32Array(32);

/**
 * @param {Uint8Array} bytes
 * @returns {string} hex
 */
export function blake2b(bytes) {
  const state = INITIAL.slice();
  state[0] ^= 0x01010000 ^ LENGTH;
  const last = Math.max(1, Math.ceil(bytes.length / BLOCK)) - 1;
  for (let block = 0; block < last; block++) mix(state, bytes, block * BLOCK, (block + 1) * BLOCK, false);
  const rest = new Uint8Array(BLOCK);
  rest.set(bytes.subarray(last * BLOCK));
  mix(state, rest, 0, bytes.length, true);
  return Array.from({ length: LENGTH }, (_, at) =>
    ((state[at >> 2] >>> (8 * (at & 3))) & 255).toString(16).padStart(2, "0"),
  ).join("");
}

/**
 * @param {Int32Array} state
 * @param {Uint8Array} bytes
 * @param {number} from of these 128
 * @param {number} count bytes of the whole until here
 * @param {boolean} isLast
 */
function mix(state, bytes, from, count, isLast) {
  for (let word = 0, at = from; word < 32; word++, at += 4) {
    message[word] = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
  }
  v.set(state);
  v.set(INITIAL, 16);
  v[24] ^= count | 0;
  v[25] ^= Math.floor(count / 2 ** 32);
  if (isLast) {
    v[28] = ~v[28];
    v[29] = ~v[29];
  }
  for (let round = 0; round < ORDER.length; round++) {
    const order = ORDER[round];
    for (let quarter = 0; quarter < 8; quarter++) {
      const places = QUARTERS[quarter];
      quarterRound(places[0], places[1], places[2], places[3], order[2 * quarter], order[2 * quarter + 1]);
    }
  }
  for (let at = 0; at < 16; at++) state[at] ^= v[at] ^ v[at + 16];
}

/** @param {number} a @param {number} b @param {number} c @param {number} d @param {number} x @param {number} y */
function quarterRound(a, b, c, d, x, y) {
  add(a, v[b], v[b + 1]);
  add(a, message[x], message[x + 1]);
  turn(d, a, 32);
  add(c, v[d], v[d + 1]);
  turn(b, c, 24);
  add(a, v[b], v[b + 1]);
  add(a, message[y], message[y + 1]);
  turn(d, a, 16);
  add(c, v[d], v[d + 1]);
  turn(b, c, 63);
}

/** @param {number} at @param {number} low @param {number} high */
function add(at, low, high) {
  const sum = (v[at] + low) | 0;
  v[at + 1] = (v[at + 1] + high + (sum >>> 0 < low >>> 0 ? 1 : 0)) | 0;
  v[at] = sum;
}

/**
 * v[at] = (v[at] ^ v[other]) turned right.
 * @param {number} at @param {number} other @param {number} bits
 */
function turn(at, other, bits) {
  const low = v[at] ^ v[other];
  const high = v[at + 1] ^ v[other + 1];
  if (bits === 32) {
    v[at] = high;
    v[at + 1] = low;
  } else if (bits === 63) {
    v[at] = (low << 1) | (high >>> 31);
    v[at + 1] = (high << 1) | (low >>> 31);
  } else {
    v[at] = (low >>> bits) | (high << (32 - bits));
    v[at + 1] = (high >>> bits) | (low << (32 - bits));
  }
}
