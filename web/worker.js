// Runs the student beside the page, so that the page never waits: pictures in, detections and embeddings out.

import { blake2b } from "./blake2b.js";
import { PageError } from "./errors.js";
import { letterbox } from "./picture.js";

/** @import { Backend, Detection, Found, Question } from "./student.js" */
/** @typedef {ReturnType<typeof letterbox> & { width: number, height: number, photo: () => string }} Frame */

const MOST_PIXELS = 2 ** 28; // as the command line
const LEAST_SIDE = 10;
const GPU_SECONDS = 15; // for the first run, which compiles
const FRAMES_KEPT = 2; // the one that is shown, and the one on its way

/** @type {any} onnxruntime-web */
let ort;
/** @type {any} */
let session;
/** @type {Uint8Array} */
let model;
let isGpu = false;
let size = 0;
let width = 0; // of an embedding
let last = 0;
/** @type {Map<number, Frame>} */
const frames = new Map();

/** @type {Record<string, (message: any) => unknown>} */
const ANSWERS = { load, look, detect, digest: ({ frame }) => frameOf(frame).photo() };

/** @type {Promise<unknown>} a session answers one question after the other */
let turn = Promise.resolve();
self.addEventListener("message", ({ data: { id, kind, ...message } }) => {
  turn = turn.then(async () => {
    try {
      self.postMessage({ id, value: await ANSWERS[kind](message) });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      self.postMessage({ id, error: text, isOurs: error instanceof PageError });
    }
  });
});

/** @param {{ url: string, imageSize: number, width: number }} message @returns {Promise<Backend>} */
async function load({ url, ...shape }) {
  size = shape.imageSize;
  width = shape.width;
  const reading = fetch(url).then((answer) => answer.arrayBuffer());
  const useGpu = await hasGpu();
  const starting = startRuntime(useGpu);
  model = new Uint8Array(await reading);
  await starting;
  if (useGpu) {
    try {
      await inTime(openSession("webgpu"));
      isGpu = true;
      const image = new Float32Array(3 * size * size);
      // A kernel that is missing shows in a run, and zero rows need another one than some do.
      const frame = { image, area: Float32Array.of(0, 0, size, size), width: size, height: size };
      await inTime(run(frame, { boxes: [], confidence: 1 }));
      return backend();
    } catch {
      await leaveGpu();
    }
  } else {
    await openSession("wasm");
  }
  return backend();
}

/** @param {{ picture: Blob | ImageBitmap }} message */
async function look({ picture }) {
  const started = performance.now();
  const { width, height, data } = await pixels(picture);
  const content = picture instanceof Blob ? new Uint8Array(await picture.arrayBuffer()) : new Uint8Array(data.buffer);
  const decoded = performance.now();
  frames.set(++last, { ...letterbox(data, width, height, size), width, height, photo: () => blake2b(content) });
  for (const old of [...frames.keys()].slice(0, -FRAMES_KEPT)) frames.delete(old);
  return { frame: last, width, height, decoding: decoded - started, letterboxing: performance.now() - decoded };
}

/** @param {Question & { frame: number }} message @returns {Promise<Found>} */
async function detect({ frame, ...question }) {
  const seen = frameOf(frame);
  const started = performance.now();
  let outputs;
  try {
    outputs = await (isGpu ? inTime(run(seen, question)) : run(seen, question));
  } catch (error) {
    if (!isGpu) throw error;
    await leaveGpu();
    outputs = await run(seen, question);
  }
  const { before, scale, sides } = places(seen);
  /** @param {any} rows @param {number} at */
  const row = (rows, at) => rows.data.slice(at * width, (at + 1) * width);
  /** @type {Detection[]} */
  const detections = Array.from({ length: outputs.scores.dims[0] }, (_, at) => ({
    box: [0, 1, 2, 3].map((side) => {
      const inside = (outputs.boxes.data[4 * at + side] - before[side % 2]) / scale[side % 2];
      return Math.min(Math.max(inside, 0), sides[side % 2]);
    }),
    score: outputs.scores.data[at],
    coarse: Number(outputs.classes.data[at]),
    row: Number(outputs.personal.data[at]),
    closeness: outputs.closeness.data[at],
    embedding: row(outputs.embeddings, at),
  }));
  const regions = question.boxes.map((_, at) => row(outputs.region_embeddings, at));
  return { frame, detections, regions, milliseconds: performance.now() - started, backend: backend() };
}

/**
 * One pass of the network.
 * @param {Pick<Frame, "image" | "area" | "width" | "height">} frame
 * @param {Question} question
 */
function run(frame, { boxes, confidence, compared, thresholds = [] }) {
  const { before, scale } = places(frame);
  const regions = boxes.flatMap((box) => box.map((side, at) => side * scale[at % 2] + before[at % 2]));
  // WebGPU's kernels fail on no rows at all: one that stands for nothing goes in its place.
  const known = compared?.coarse.length ? compared : { prototypes: new Float32Array(width), coarse: [-1], objects: [0] };
  const rows = known.coarse.length;
  /** @param {number[]} values */
  const whole = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
  /** @param {ArrayLike<number>} values @param {number[]} dims */
  const floats = (values, ...dims) => new ort.Tensor("float32", Float32Array.from(values), dims);
  return session.run({
    image: new ort.Tensor("float32", frame.image, [1, 3, size, size]),
    area: floats(frame.area, 4),
    prototypes: floats(known.prototypes, rows, width),
    coarse: whole(known.coarse),
    objects: whole(known.objects),
    threshold: floats(compared?.coarse.length ? thresholds : [1], rows),
    confidence: floats([confidence], 1),
    regions: floats(regions.length ? regions : [0, 0, 0, 0], Math.max(boxes.length, 1), 4),
  });
}

/**
 * Where a picture lies in the square, across and down: the letterbox rounds each side by itself.
 * @param {Pick<Frame, "area" | "width" | "height">} frame
 */
function places({ area: [left, top, right, bottom], width, height }) {
  return { before: [left, top], scale: [(right - left) / width, (bottom - top) / height], sides: [width, height] };
}

/** @param {boolean} useGpu */
async function startRuntime(useGpu) {
  ort = await import(useGpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;
  ort.env.wasm.numThreads = threads();
  ort.env.logLevel = "fatal"; // what goes wrong is said on the page
}

/** @param {string} provider */
async function openSession(provider) {
  session = await ort.InferenceSession.create(model, { executionProviders: [provider], logSeverityLevel: 4 });
}

/** WebAssembly takes over from a GPU that does not do. */
async function leaveGpu() {
  isGpu = false;
  await startRuntime(false);
  await openSession("wasm");
}

/** A GPU that is computed by the CPU is slower than WebAssembly. */
async function hasGpu() {
  const { gpu } = /** @type {any} */ (navigator);
  const adapter = await gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
}

/**
 * @template Value
 * @param {Promise<Value>} work
 * @returns {Promise<Value>} refused when it takes too long: a driver may never answer
 */
function inTime(work) {
  const late = new Promise((_, refuse) => setTimeout(() => refuse(new Error("no answer")), GPU_SECONDS * 1000));
  return Promise.race([work, /** @type {Promise<never>} */ (late)]);
}

/** Threads need headers that a server of files may not send. */
const threads = () => (self.crossOriginIsolated ? navigator.hardwareConcurrency : 1);

/** @returns {Backend} */
const backend = () => (isGpu ? { name: "WebGPU", threads: 0 } : { name: "WebAssembly", threads: threads() });

/** @param {number} frame */
function frameOf(frame) {
  const found = frames.get(frame);
  if (!found) throw new PageError("the picture has gone by; show it again");
  return found;
}

/**
 * Upright pixels, as the command line decodes them: no colour profile, transparency dropped.
 * @param {Blob | ImageBitmap} picture
 */
async function pixels(picture) {
  const bitmap = picture instanceof Blob ? await decode(picture) : picture;
  const { width, height } = bitmap;
  try {
    if (width * height > MOST_PIXELS) {
      throw new PageError(
        `an image has at most ${Math.floor(MOST_PIXELS / 1e6)} megapixels, found ${width} x ${height}; make it smaller`,
      );
    }
    if (Math.min(width, height) < LEAST_SIDE) {
      throw new PageError(
        `an image must be at least ${LEAST_SIDE} x ${LEAST_SIDE} pixels, found ${width} x ${height}; choose another`,
      );
    }
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (!context) throw new RangeError("no canvas");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, width, height);
  } catch (error) {
    if (error instanceof PageError) throw error;
    throw new PageError(`this image of ${width} x ${height} pixels is too large for this device; make it smaller`);
  } finally {
    bitmap.close();
  }
}

/** @param {Blob} file */
async function decode(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new PageError(
      "this file cannot be read as an image: it is none, is damaged, is far too large, or is of a kind that this browser does " +
        "not know; save it as JPEG or PNG",
    );
  }
}
