// The page: its parts, and what happens when somebody does something.

import { button, byId, download, drawCrop, say } from "./dom.js";
import { PageError } from "./errors.js";
import { Known } from "./known.js";
import { learn, warnings } from "./learning.js";
import { Looking } from "./looking.js";
import { photoCount } from "./profile.js";
import { asJson, asPicture, things } from "./results.js";
import { readSafetensors } from "./safetensors.js";
import { Live, sortFiles } from "./sources.js";
import { readAbout, Student } from "./student.js";
import { Teach } from "./teach.js";
import { View } from "./view.js";

/** @import { Thing } from "./results.js" */
/** @import { Lesson } from "./teach.js" */

const MODEL = "student/student.onnx";
const THUMBNAIL = 96;
const SIMD = Uint8Array.of(
  0,
  97,
  115,
  109,
  1,
  0,
  0,
  0,
  1,
  5,
  1,
  96,
  0,
  1,
  123,
  3,
  2,
  1,
  0,
  10,
  10,
  1,
  8,
  0,
  65,
  0,
  253,
  15,
  253,
  98,
  11,
);

const student = new Student();
const view = new View({ begins: () => hold(true), drawn: teachBox, clicked: pick, cancelled: letGo });
const teach = new Teach({
  done: learnBox,
  moved: (box) => view.mark(box),
  closed: () => {
    view.mark(null);
    hold(false);
  },
});
/** @type {Known} */
let known;
/** @type {Looking} */
let looking;

/**
 * Do something, and say what went wrong if it did.
 * @param {() => unknown} work
 */
async function run(work) {
  tell("");
  try {
    await work();
  } catch (error) {
    tell(inWords(error));
  }
}

/** @param {unknown} error */
const inWords = (error) => (error instanceof PageError ? error.message : `something went wrong: ${error}`);

/** @param {string} text @param {boolean} [isGood] */
function tell(text, isGood = false) {
  const message = byId("message", HTMLParagraphElement);
  message.classList.toggle("good", isGood);
  say(message, text);
}

// ---- Pictures ------------------------------------------------------------------------------------------------------

/** @param {Blob} picture @param {string} name */
async function look(picture, name) {
  teach.close();
  await looking.look(picture, name);
}

/** @param {Promise<Live>} opening */
async function follow(opening) {
  teach.close();
  const live = await opening;
  void run(() => looking.follow(live));
}

/** @param {Iterable<File>} files */
async function take(files) {
  const { profiles, videos, pictures } = sortFiles(files);
  for (const file of profiles) tell(await known.open(file), true);
  if (videos.length) await follow(Live.video(videos[0]));
  for (const [at, file] of pictures.entries()) {
    if (at === 0) await look(file, file.name); // one that cannot be read does not get into the strip
    byId("strip", HTMLUListElement).prepend(stripItem(file.name, URL.createObjectURL(file), async () => file));
  }
}

/** @param {string} name @param {string} address @param {() => Promise<Blob>} read */
function stripItem(name, address, read) {
  const image = document.createElement("img");
  image.src = address;
  image.alt = "";
  const press = button("", () => run(async () => look(await read(), name)), `Look at ${name}`);
  press.append(image);
  const row = document.createElement("li");
  row.append(press);
  return row;
}

// ---- Objects -------------------------------------------------------------------------------------------------------

/** @param {boolean} isHeld */
function hold(isHeld) {
  if (looking) looking.isHeld = isHeld;
}

/** Nothing was drawn after all. */
function letGo() {
  if (teach.isOpen) return;
  view.mark(null);
  hold(false);
}

/** @param {number[]} box @param {{ chosen?: Thing["detection"], name?: string }} [told] */
function teachBox(box, told) {
  hold(true);
  const { image, found } = looking.current;
  teach.open({ image, detections: found.detections, profile: known.profile }, box, told);
}

/** @param {Thing} thing */
const teachThing = ({ detection, name, object }) =>
  teachBox(detection.box, { chosen: detection, name: object < 0 ? "" : name });

/** @param {number} x @param {number} y */
function pick(x, y) {
  /** @param {Thing} thing */
  const area = ({ detection: { box } }) => (box[2] - box[0]) * (box[3] - box[1]);
  const here = looking
    .things()
    .filter(({ detection: { box } }) => x >= box[0] && y >= box[1] && x <= box[2] && y <= box[3])
    .sort((one, other) => area(one) - area(other));
  if (here.length) return teachThing(here[0]);
  letGo();
  return tell("nothing was found there; draw a box around the thing");
}

/** @param {Lesson} lesson */
async function learnBox(lesson) {
  const { image, looked } = looking.current;
  const { name } = lesson;
  const before = known.profile;
  const after = await learn(student, looked.frame, before, lesson, known.question().confidence);
  await known.learnt(after, name, () => thumbnail(image, lesson.box));
  const count = photoCount(after, name);
  const isAgain = before.names.includes(name) && count === photoCount(before, name);
  const told = isAgain
    ? `${name}: this photo and box was learnt before, and counts once.`
    : `Learnt ${name} from ${count} photo${count > 1 ? "s" : ""}.`;
  const doubts = warnings(after, name, lesson, things(looking.current.found.detections, after, known.strangers, []));
  tell([told, ...doubts].join(" "), !doubts.length);
}

/**
 * @param {ImageBitmap} image
 * @param {number[]} box
 * @returns {Promise<Blob>}
 */
function thumbnail(image, box) {
  const canvas = document.createElement("canvas");
  canvas.width = THUMBNAIL;
  canvas.height = THUMBNAIL;
  drawCrop(image, box, canvas);
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(/** @type {Blob} */ (blob)), "image/png"));
}

// ---- Results -------------------------------------------------------------------------------------------------------

async function savePicture() {
  const { image, source } = looking.current;
  download(await asPicture(image, looking.things()), `${stem(source)} found.png`);
}

function saveResults() {
  const { source, number, looked, found } = looking.current;
  const { width, height, letterboxing } = looked;
  const seconds = (letterboxing + found.milliseconds) / 1000;
  const text = JSON.stringify(asJson({ source, number, width, height, seconds }, looking.things()));
  download(new Blob([`${text}\n`], { type: "application/json" }), `${stem(source)} found.json`);
}

/** @param {string} name */
const stem = (name) => name.replace(/\.[^.]+$/, "");

// ---- The beginning -------------------------------------------------------------------------------------------------

function wire() {
  /** @param {string} id @param {() => unknown} work */
  const press = (id, work) => byId(id, HTMLButtonElement).addEventListener("click", () => run(work));
  for (const [id, field] of ["photo", "video", "profile"].map((name) => [name, byId(`${name}-file`, HTMLInputElement)])) {
    const files = /** @type {HTMLInputElement} */ (field);
    press(id === "profile" ? "open-profile" : String(id), () => files.click());
    files.addEventListener("change", () => {
      const chosen = [...(files.files ?? [])];
      files.value = ""; // so that the same file can be chosen again
      void run(() => take(chosen));
    });
  }
  press("camera", () =>
    follow(
      Live.camera((reason) => {
        looking.end();
        tell(reason);
      }),
    ),
  );
  press("pause", () => looking.togglePause());
  press("box", () => {
    const { width, height } = looking.current.looked;
    teachBox([0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height].map(Math.round));
  });
  press("save-picture", savePicture);
  press("save-results", saveResults);
  press("save-profile", () => known.save());
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const dropped = [...(event.dataTransfer?.files ?? [])];
    void run(() => take(dropped));
  });
}

/** @param {string} address */
async function read(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new PageError(`${address} is missing: this page is not whole; run mocha-pipe web again`);
  return answer;
}

async function begin() {
  if (!WebAssembly.validate(SIMD)) {
    throw new PageError("this browser lacks WebAssembly SIMD, which the student needs; use a newer one (from 2023 on)");
  }
  const [site, told, strangers] = await Promise.all([
    read("page.json").then((answer) => answer.json()),
    read(`${MODEL}.json`).then((answer) => answer.json()),
    read("student/strangers.safetensors").then((answer) => answer.arrayBuffer()),
  ]);
  const about = readAbout(told);
  const loading = student.load(MODEL, about);
  const { kept, keeps } = await Known.recall(about);
  known = new Known(about, readSafetensors(strangers).tensors.closeness.values, kept, keeps, {
    changed: () => looking.again(),
    run,
  });
  looking = new Looking({ student, view, known }, teachThing);
  known.show();
  wire();
  const scenes = site.samples.map((/** @type {string} */ address, /** @type {number} */ at) =>
    stripItem(`scene ${at + 1}`, address, async () => (await read(address)).blob()),
  );
  byId("strip", HTMLUListElement).append(...scenes);
  if (site.profile) await run(() => known.takeAlong(site.profile));
  Looking.showBackend(await loading);
  if (!looking.shown) await run(async () => look(await (await read(site.samples[0])).blob(), "scene 1"));
  if (!keeps) tell("this browser keeps nothing for this page; save the profile before you close it");
}

begin().catch((error) => {
  byId("state", HTMLParagraphElement).textContent = "The student cannot run here";
  tell(inWords(error));
});
