// Where pictures come from: camera and video, which go on by themselves, and files.

import { PageError } from "./errors.js";

const REASONS = /** @type {Record<string, string>} */ ({
  NotAllowedError: "the camera was not allowed; allow it for this page in the browser's settings, or choose a photo",
  NotFoundError: "no camera is there; connect one, or choose a photo",
  NotReadableError: "the camera is in use elsewhere; end the other program, or choose a photo",
});
const LOST = "the camera is gone; connect it and press Camera again. The last picture stays";

/** A camera or a video file, from which the newest frame can be taken at any time. */
export class Live {
  #video = document.createElement("video");
  #isEnded = false;

  /** @param {string} name of the source */
  constructor(name) {
    this.name = name;
    this.#video.muted = true;
    this.#video.playsInline = true;
  }

  /** @param {(reason: string) => void} lost */
  static async camera(lost) {
    const live = new Live("camera");
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "NotFoundError");
      const stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 1280 } },
      });
      for (const track of stream.getTracks()) {
        track.addEventListener("ended", () => {
          if (!live.#isEnded) lost(LOST);
          live.stop();
        });
      }
      live.#video.srcObject = stream;
      await live.#video.play();
      return live;
    } catch (error) {
      live.stop();
      const name = error instanceof DOMException ? error.name : "";
      throw new PageError(REASONS[name] ?? `the camera does not start (${name || error}); choose a photo`);
    }
  }

  /** @param {File} file */
  static async video(file) {
    const live = new Live(file.name);
    live.#video.src = URL.createObjectURL(file);
    live.#video.loop = true;
    try {
      await live.#video.play();
      return live;
    } catch {
      live.stop();
      throw new PageError(`${file.name}: this browser cannot play it as a video; save it as MP4 or WebM`);
    }
  }

  get isEnded() {
    return this.#isEnded;
  }

  /** @param {boolean} isPaused */
  pause(isPaused) {
    if (isPaused) this.#video.pause();
    else if (!this.#isEnded) void this.#video.play();
  }

  /** @returns {Promise<ImageBitmap | null>} null while there is none */
  async frame() {
    const ready = this.#video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && this.#video.videoWidth > 0;
    return ready && !this.#isEnded ? createImageBitmap(this.#video) : null;
  }

  stop() {
    if (this.#isEnded) return;
    this.#isEnded = true;
    const stream = this.#video.srcObject;
    if (stream instanceof MediaStream) for (const track of stream.getTracks()) track.stop();
    this.#video.pause();
    if (this.#video.src) URL.revokeObjectURL(this.#video.src);
    this.#video.removeAttribute("src");
    this.#video.srcObject = null;
  }
}

/**
 * What was chosen or dropped, by kind.
 * @param {Iterable<File>} files
 */
export function sortFiles(files) {
  const all = [...files];
  const profiles = all.filter((file) => file.name.endsWith(".safetensors"));
  const videos = all.filter((file) => file.type.startsWith("video/"));
  return { profiles, videos, pictures: all.filter((file) => !profiles.includes(file) && !videos.includes(file)) };
}
