// Safetensors: the length of a json header, the header, the numbers. Read with every place checked; written to the byte as
// the Python package writes them.

/** @typedef {"I64" | "F32" | "F16"} Kind */
/** @typedef {{ kind: string, shape: number[], values: number[] | Float32Array }} Tensor F16 as the numbers that it stands for */
/** @typedef {{ metadata: Record<string, string>, tensors: Record<string, Tensor> }} Content */

const KINDS = ["I64", "F32", "F16"];
const BYTES = /** @type {Record<string, number>} */ ({ I64: 8, F32: 4, F16: 2 });

/**
 * @param {ArrayBuffer} buffer
 * @returns {Content}
 * @throws {Error} it is none; the text says why
 */
export function readSafetensors(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 8) throw new Error("too short");
  const length = Number(view.getBigUint64(0, true));
  if (length > buffer.byteLength - 8) throw new Error("no whole header");
  const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length)));
  const { __metadata__: metadata = {}, ...entries } = header;
  /** @type {Record<string, Tensor>} */
  const tensors = {};
  let end = 0;
  for (const [
    name,
    {
      dtype: kind,
      shape,
      data_offsets: [from, to],
    },
  ] of Object.entries(entries)) {
    if (!(kind in BYTES)) throw new Error(`${name} is ${kind}`);
    const count = shape.reduce((/** @type {number} */ product, /** @type {number} */ side) => product * side, 1);
    if (!Number.isSafeInteger(from) || from < 0 || to - from !== count * BYTES[kind] || 8 + length + to > buffer.byteLength) {
      throw new Error(`${name} lies outside the file`);
    }
    tensors[name] = { kind, shape, values: numbers(view, 8 + length + from, count, kind) };
    end = Math.max(end, to);
  }
  if (8 + length + end !== buffer.byteLength) throw new Error("bytes behind the numbers");
  return { metadata, tensors };
}

/**
 * @param {Record<string, string>} metadata one key, as several have no order
 * @param {Record<string, { kind: Kind, shape: number[], values: ArrayLike<number> }>} tensors
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function writeSafetensors(metadata, tensors) {
  const names = Object.keys(tensors).sort(
    (one, other) => KINDS.indexOf(tensors[one].kind) - KINDS.indexOf(tensors[other].kind) || (one < other ? -1 : 1),
  );
  /** @type {Record<string, unknown>} */
  const header = { __metadata__: metadata };
  let end = 0;
  for (const name of names) {
    const { kind, shape, values } = tensors[name];
    header[name] = { dtype: kind, shape, data_offsets: [end, end + values.length * BYTES[kind]] };
    end += values.length * BYTES[kind];
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(text.length / 8) * 8;
  const bytes = new Uint8Array(8 + length + end).fill(0x20, 8 + text.length, 8 + length);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(length), true);
  bytes.set(text, 8);
  let at = 8 + length;
  for (const name of names) {
    const { kind, values } = tensors[name];
    for (let index = 0; index < values.length; index++, at += BYTES[kind]) {
      if (kind === "I64") view.setBigInt64(at, BigInt(values[index]), true);
      else if (kind === "F32") view.setFloat32(at, values[index], true);
      else view.setUint16(at, toHalf(values[index]), true);
    }
  }
  return bytes;
}

/** @param {DataView} view @param {number} from @param {number} count @param {string} kind */
function numbers(view, from, count, kind) {
  if (kind === "I64") return Array.from({ length: count }, (_, index) => Number(view.getBigInt64(from + 8 * index, true)));
  if (kind === "F32") return Float32Array.from({ length: count }, (_, index) => view.getFloat32(from + 4 * index, true));
  return Float32Array.from({ length: count }, (_, index) => fromHalf(view.getUint16(from + 2 * index, true)));
}

/** @param {number} bits */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const rest = bits & 1023;
  if (exponent === 31) return rest ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? (1 + rest / 1024) * 2 ** (exponent - 15) : rest * 2 ** -24);
}

/**
 * The nearest number of 16 bits, of two that are as near the even one.
 * @param {number} value of 32 bits, at most 65504 high
 */
function toHalf(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(size)) return 0x7e00;
  // Steps between neighbours: those of the power of two below, or of the smallest numbers.
  const power = Math.max(Math.floor(Math.log2(size || 1)), -14);
  const exact = size === 0 ? 0 : size / 2 ** (power - 10);
  const floor = Math.floor(exact);
  const rest = exact - floor;
  const steps = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  return sign | ((power + 14) * 1024 + steps);
}
