// Elements of the page by their ids, and the few things that every part does with them.

/**
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} called ${id}`);
  return found;
}

/**
 * @param {string} text
 * @param {() => void} pressed
 * @param {string} [label] what it is to somebody who does not see where it stands
 */
export function button(text, pressed, label = text) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", pressed);
  return made;
}

/**
 * Text in an element that is there only while it says something.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function say(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/**
 * @param {Blob} content
 * @param {string} name of the file
 */
export function download(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * A question in front of the page; Escape answers with the last choice.
 * @param {string} text
 * @param {string[]} choices
 * @param {HTMLElement} [more] to be filled in
 * @returns {Promise<string>}
 */
export function ask(text, choices, more) {
  const dialog = byId("ask", HTMLDialogElement);
  byId("ask-text", HTMLParagraphElement).textContent = text;
  byId("ask-more", HTMLDivElement).replaceChildren(...(more ? [more] : []));
  byId("ask-buttons", HTMLDivElement).replaceChildren(
    ...choices.map((choice, at) => {
      const made = document.createElement("button");
      made.value = choice;
      made.textContent = choice;
      if (at === 0) made.className = "main";
      return made;
    }),
  );
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue || choices[choices.length - 1]), { once: true });
  });
}

/**
 * A box cut out of a picture, in the middle of a square.
 * @param {CanvasImageSource} image
 * @param {number[]} box
 * @param {HTMLCanvasElement} canvas
 */
export function drawCrop(image, [left, top, right, bottom], canvas) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const { width: side } = canvas;
  const scale = side / Math.max(right - left, bottom - top, 1);
  const [width, height] = [(right - left) * scale, (bottom - top) * scale];
  context.clearRect(0, 0, side, side);
  context.drawImage(image, left, top, right - left, bottom - top, (side - width) / 2, (side - height) / 2, width, height);
}
