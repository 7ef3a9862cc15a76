// What the browser remembers between visits: one record for each student and learner.

/** @import { Profile } from "./profile.js" */

/**
 * @typedef {object} Kept
 * @property {Profile} profile
 * @property {Record<string, Blob>} pictures of objects, by their names
 * @property {string[]} hidden names of objects that are not shown
 * @property {number} rate
 * @property {string} taken digest of the profile that came with the page and is in this one by now
 */

const NAME = "mocha-pipe";
const TABLE = "kept";

/** @param {string} key @returns {Promise<Kept | undefined>} */
export const recall = (key) => inTable("readonly", (table) => table.get(key));

/** @param {string} key @param {Kept} kept @returns {Promise<unknown>} */
export const remember = (key, kept) => inTable("readwrite", (table) => table.put(kept, key));

/**
 * @param {IDBTransactionMode} mode
 * @param {(table: IDBObjectStore) => IDBRequest} ask
 * @returns {Promise<any>}
 */
async function inTable(mode, ask) {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(TABLE);
  const base = await settled(opening);
  try {
    return await settled(ask(base.transaction(TABLE, mode).objectStore(TABLE)));
  } finally {
    base.close();
  }
}

/** @param {IDBRequest} request @returns {Promise<any>} */
const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
