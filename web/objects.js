// The list of a person's objects: rename, forget, show or hide.

import { button, byId } from "./dom.js";
import { colorOf } from "./draw.js";
import { photos } from "./profile.js";

/** @import { Kept } from "./store.js" */

/** @type {Map<Blob, string>} addresses of pictures that are shown */
const addresses = new Map();

/**
 * @param {Kept} kept
 * @param {object} told
 * @param {(name: string) => void} told.rename
 * @param {(name: string) => void} told.forget
 * @param {(name: string, isShown: boolean) => void} told.show
 */
export function showObjects({ profile, pictures, hidden }, { rename, forget, show }) {
  byId("none", HTMLParagraphElement).hidden = profile.names.length > 0;
  byId("objects", HTMLUListElement).replaceChildren(
    ...profile.names.map((name, at) => {
      const row = document.createElement("li");
      row.style.setProperty("--own", colorOf(at));
      const text = document.createElement("span");
      text.className = "grow";
      const title = document.createElement("strong");
      title.textContent = name;
      const told = document.createElement("small");
      const counts = [...photos(profile, name)].map(([kind, count]) => `${count} photo${count > 1 ? "s" : ""} as ${kind}`);
      told.textContent = counts.join(", ");
      text.append(title, told);
      const tick = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = !hidden.includes(name);
      box.setAttribute("aria-label", `Show ${name}`);
      box.addEventListener("change", () => show(name, box.checked));
      tick.append(box, "show");
      const actions = document.createElement("span");
      actions.className = "actions";
      actions.append(
        tick,
        button("Rename", () => rename(name), `Rename ${name}`),
        button("Forget", () => forget(name), `Forget ${name}`),
      );
      row.append(thumbnail(name, pictures[name]), text, actions);
      return row;
    }),
  );
  const shown = new Set(Object.values(pictures));
  for (const [picture, address] of addresses) {
    if (!shown.has(picture)) {
      URL.revokeObjectURL(address);
      addresses.delete(picture);
    }
  }
}

/** @param {string} name @param {Blob | undefined} picture */
function thumbnail(name, picture) {
  if (!picture) {
    const letter = document.createElement("span");
    letter.className = "thumbnail";
    letter.setAttribute("aria-hidden", "true");
    letter.textContent = [...name][0].toUpperCase();
    return letter;
  }
  const image = document.createElement("img");
  image.className = "thumbnail";
  image.alt = "";
  if (!addresses.has(picture)) addresses.set(picture, URL.createObjectURL(picture));
  image.src = /** @type {string} */ (addresses.get(picture));
  return image;
}
