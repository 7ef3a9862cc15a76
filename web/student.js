// The student, as the page asks it: each question goes to the worker, which answers in its own time.

import { PageError } from "./errors.js";

/** @import { Compared } from "./naming.js" */
/** @import { LearnerName } from "./lessons.js" */

/** @typedef {{ name: string, threads: number }} Backend what computes */
/**
 * @typedef {object} About
 * @property {string} student digest
 * @property {LearnerName} learner
 * @property {string[]} classNames
 * @property {number} imageSize side of what enters the network, in pixels
 * @property {number} width of an embedding
 * @property {number} rate false-accept rate that the file was exported with
 */
/**
 * @typedef {object} Question
 * @property {number[][]} boxes left, top, right, bottom in the picture, whose embeddings are wanted
 * @property {number} confidence detections need more than this
 * @property {Compared} [compared] what gives names; without it nothing has one
 * @property {number[]} [thresholds] of each row
 */
/**
 * @typedef {object} Detection
 * @property {number[]} box left, top, right, bottom in pixels of the picture
 * @property {number} score the detector's, 0..1
 * @property {number} coarse what the detector says
 * @property {number} row of the prototype whose name it has, -1 where it is unknown
 * @property {number} closeness cosine with the nearest row
 * @property {Float32Array} embedding
 */
/**
 * @typedef {object} Found
 * @property {number} frame
 * @property {Detection[]} detections best score first
 * @property {Float32Array[]} regions an embedding for each box
 * @property {number} milliseconds
 * @property {Backend} backend
 */
/** @typedef {{ frame: number, width: number, height: number, decoding: number, letterboxing: number }} Looked */

export class Student {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: Error) => void }>} */
  #waiting = new Map();
  #questions = 0;

  constructor() {
    this.#worker.addEventListener("message", ({ data: { id, value, error, isOurs } }) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiting?.resolve(value);
      else waiting?.reject(isOurs ? new PageError(error) : new Error(error));
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      for (const { reject } of this.#waiting.values()) reject(new Error(event.message || "the worker did not start"));
      this.#waiting.clear();
    });
  }

  /** @param {string} url of the model @param {About} about @returns {Promise<Backend>} */
  load = (url, { imageSize, width }) => this.#ask("load", { url: new URL(url, document.baseURI).href, imageSize, width });

  /**
   * Hand a picture over, which the questions that follow are about.
   * @param {Blob | ImageBitmap} picture a bitmap is gone afterwards
   * @returns {Promise<Looked>}
   */
  look = (picture) => this.#ask("look", { picture }, picture instanceof Blob ? [] : [picture]);

  /** @param {number} frame @param {Question} question @returns {Promise<Found>} */
  detect = (frame, question) => this.#ask("detect", { frame, ...question });

  /** @param {number} frame @returns {Promise<string>} of the picture's file, or of the pixels of one that has none */
  digest = (frame) => this.#ask("digest", { frame });

  /** @param {string} kind @param {object} message @param {Transferable[]} [handed] @returns {Promise<any>} */
  #ask(kind, message, handed = []) {
    const id = ++this.#questions;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, kind, ...message }, handed);
    });
  }
}

/**
 * What the file beside the model says, as far as the page needs it.
 * @param {{ student: string, learner: LearnerName, class_names: string[], image_size: number, embedding_dim: number, false_accept_rate: number }} told
 * @returns {About}
 */
export function readAbout(told) {
  return {
    student: told.student,
    learner: told.learner,
    classNames: told.class_names,
    imageSize: told.image_size,
    width: told.embedding_dim,
    rate: told.false_accept_rate,
  };
}
