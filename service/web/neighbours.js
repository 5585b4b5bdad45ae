// @ts-check
/**
 * The other tabs of this browser: each tells which requests its views follow, and how far, so that the timeline of a
 * request has a row for them too. The tabs talk to each other only; the service has no part in it.
 */

import { randomId } from "/web/dom.js";

const NAME = "tidegate-follow";
const EVERY_MS = 200; // between two reports on a request

/** @typedef {import("/web/section.js").Section} Section */
/** @typedef {import("/web/log.js").Guest} Guest */

/** Tells other tabs of this tab's views, and shows theirs. */
export class Neighbours {
  #tab = randomId();
  #channel = new BroadcastChannel(NAME);
  /** @type {Set<Section>} with a report that waits. */ #waiting = new Set();
  #sections;

  /** @param {() => Section[]} sections the requests of this tab. */
  constructor(sections) {
    this.#sections = sections;
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    addEventListener("pagehide", () => this.#channel.postMessage({ tab: this.#tab, gone: true }));
  }

  /** Report on the views of a section, soon. @param {Section} section */
  tell(section) {
    if (!section.facts.id || this.#waiting.has(section)) return;
    this.#waiting.add(section);
    setTimeout(() => {
      this.#waiting.delete(section);
      this.#report(section);
    }, EVERY_MS);
  }

  /** Ask the other tabs for their views of a request. @param {string} id */
  ask(id) {
    this.#channel.postMessage({ tab: this.#tab, asks: id });
  }

  /** @param {Section} section */
  #report({ facts, log }) {
    const lanes = log.lanes.map(({ name, state, position, caught, spans, marks }) => ({ name, state, position, caught, spans, marks }));
    this.#channel.postMessage({ tab: this.#tab, id: facts.id, epoch: log.epoch, lanes });
  }

  /** @param {{ tab: string, id?: string, asks?: string, gone?: boolean, epoch?: string, lanes?: Guest[] }} told */
  #hear({ tab, id, asks, gone, epoch, lanes }) {
    if (gone) {
      for (const { log } of this.#sections()) log.host(tab, log.epoch, []);
      return;
    }
    const section = this.#sections().find(({ facts }) => facts.id === (id ?? asks));
    if (section && asks) this.#report(section);
    else if (section && lanes && epoch) section.log.host(tab, epoch, lanes);
  }
}
