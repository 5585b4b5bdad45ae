// @ts-check
/** The requests that were asked or followed in this browser: kept in its storage only, and only so many. */

import { $, el } from "/web/dom.js";

const KEY = "tidegate-recent";
const MOST = 12;
const LONGEST = 80; // characters of a title

/** @typedef {{ id: string, title: string, at: number }} Recent */

/** @returns {Recent[]} */
function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    const whole = (/** @type {any} */ one) => typeof one?.id === "string" && typeof one.title === "string" && Number.isFinite(one.at);
    return Array.isArray(found) ? found.filter(whole).slice(0, MOST) : [];
  } catch {
    return []; // no storage, or somebody else's
  }
}

/** @param {Recent[]} all */
function keep(all) {
  try {
    localStorage.setItem(KEY, JSON.stringify(all));
  } catch {
    // no storage: the list lasts as long as the page
  }
}

/** The list of recent requests, which opens one of them by `follow`. */
export class RecentList {
  #all = load();
  #follow;

  /** @param {(id: string, title: string) => void} follow */
  constructor(follow) {
    this.#follow = follow;
    $("#forget").addEventListener("click", () => {
      this.#change([]);
      $("#prompt").focus();
    });
    this.#draw();
  }

  /** @param {string} id @param {string} title */
  add(id, title) {
    const known = this.#all.find((one) => one.id === id);
    const first = known ?? { id, title: title.slice(0, LONGEST), at: Date.now() };
    this.#change([first, ...this.#all.filter((one) => one !== known)].slice(0, MOST));
  }

  /** @param {Recent[]} all */
  #change(all) {
    this.#all = all;
    keep(all);
    this.#draw();
  }

  #draw() {
    $("#recent").hidden = !this.#all.length;
    $("#recent summary").textContent = `Recent requests (${this.#all.length})`;
    $("#recent ul").replaceChildren(...this.#all.map((one) => this.#item(one)));
  }

  /** @param {Recent} recent */
  #item({ id, title, at }) {
    const link = el("a", { href: `/?request=${encodeURIComponent(id)}` }, title);
    link.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab or a window of its own
      event.preventDefault();
      this.#follow(id, title);
    });
    return el("li", {}, link, " ", el("time", { datetime: new Date(at).toISOString() }, new Date(at).toLocaleTimeString()));
  }
}
