// @ts-check
/** Helpers for the document. Nothing here parses HTML: a text only ever becomes a text node. */

const COPIED_MS = 1600;
const SVG = "http://www.w3.org/2000/svg";

/** @param {string} selector @param {ParentNode} [root] @returns {any} */
export const $ = (selector, root = document) => root.querySelector(selector);

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function el(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/**
 * Make an element of SVG.
 *
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

/** @param {Element} element @param {Record<string, string>} attributes @param {(Node | string)[]} children */
function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set a text, where it has changed. @param {Node} node @param {string} text */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Return a function that runs `draw` once before the next frame, however often it is called. @param {() => void} draw */
export function oncePerFrame(draw) {
  let waiting = false;
  const run = () => {
    waiting = false;
    draw();
  };
  return () => {
    if (waiting) return;
    waiting = true;
    if (document.hidden) setTimeout(run, 50);
    else requestAnimationFrame(run);
  };
}

/** Make a name that nobody else has, also where a page has no TLS. */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Say something to readers of the screen, politely. @param {string} text */
export function announce(text) {
  $("#said").textContent = text;
}

/**
 * Copy a text; the button shows for a moment what came of it.
 *
 * @param {HTMLElement} button
 * @param {string} text
 */
export async function copy(button, text) {
  if (!text) return;
  const copied = await written(text);
  const feedback = copied ? "copied ✓" : "could not copy";
  announce(copied ? "Copied" : "Could not copy");
  button.dataset.feedback = feedback;
  setTimeout(() => {
    if (button.dataset.feedback === feedback) delete button.dataset.feedback;
  }, COPIED_MS);
}

/** @param {string} text */
async function written(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return selected(text); // no clipboard without TLS, or no permission
  }
}

/** @param {string} text */
function selected(text) {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const area = el("textarea", { class: "unseen", readonly: "", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}

/** Move the focus to a part of the page, and show it. @param {HTMLElement} element */
export function goTo(element) {
  element.focus({ preventScroll: true });
  const smooth = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ block: "nearest", behavior: smooth ? "smooth" : "auto" });
}
