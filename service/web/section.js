// @ts-check
/** A request on the page: its log, the facts that all its views share, and the views. */

import { TidegateError } from "/client.js";
import { $, goTo } from "/web/dom.js";
import { Log } from "/web/log.js";
import { Timeline } from "/web/timeline.js";
import { View } from "/web/view.js";

const MOST_VIEWS = 6; // of one request
const OVER = new Set(["completed", "failed", "cancelled"]);
const LONGEST_TITLE = 200; // characters of a prompt
const LOOK_MS = 600; // between two looks at a log that nobody on the page follows just now

/** @typedef {import("/client.js").Tidegate} Tidegate */
/** @typedef {import("/client.js").Following} Following */
/** @typedef {import("/web/form.js").Order} Order */

/**
 * @typedef {object} Facts of a request, as far as they are known; empty or null before.
 * @property {string} id
 * @property {string} traceId
 * @property {string} model
 * @property {string} source
 * @property {number | null} firstMs from sending to the first content.
 * @property {number | null} wholeMs from sending to the end.
 * @property {any} usage
 * @property {string | null} cost in US dollars; null where it is unknown.
 */

/**
 * @typedef {object} Page what a request needs of the page around it.
 * @property {() => Tidegate} connect makes a client.
 * @property {(id: string, title: string) => void} remember
 * @property {(order: Order) => void} ask
 * @property {(id: string, title: string) => void} follow
 * @property {() => string} wantKey opens the row of the key, and returns what it says.
 * @property {(step: import("/web/hint.js").Step) => void} done
 * @property {() => void} quiet an answer has come to its end.
 * @property {(section: Section) => void} removed
 * @property {(section: Section) => void} tell tells other tabs of the section's views.
 * @property {(id: string) => void} meet asks other tabs for their views of a request.
 */

/** One request of the page, in a section of its own. */
export class Section {
  /** @type {View[]} */ views = [];
  log = new Log();
  /** @type {Facts} */
  facts = { id: "", traceId: "", model: "", source: "", firstMs: null, wholeMs: null, usage: null, cost: null };
  #sentAt = performance.now();
  #made = 0;
  #looking = false;
  #ended = false;
  #remembered = false;

  /**
   * @param {Page} page
   * @param {string} title
   * @param {Order | null} order what was asked; null for a request that is only followed.
   */
  constructor(page, title, order) {
    this.page = page;
    this.title = title.slice(0, LONGEST_TITLE);
    this.order = order;
    this.element = $("#request").content.cloneNode(true).firstElementChild;
    $("h2", this.element).textContent = this.title;
    new Timeline($(".timeline", this.element), this.log);
    this.log.note("state", order ? "submitted" : "opened by its id");
    this.log.addEventListener("change", () => this.#changed());
    this.log.addEventListener("guests", () => this.draw());
    $("#requests").prepend(this.element);
  }

  /** Whether an answer that was asked for here is being written. */
  get streams() {
    return this.facts.firstMs !== null && !this.log.end && !this.log.gone;
  }

  get full() {
    return this.views.length >= MOST_VIEWS;
  }

  /** Add a view, which waits for its request. @returns {View} */
  open() {
    const view = new View(this, this.page.connect(), this.log.lane(`View ${++this.#made}`));
    this.views.push(view);
    $(".views", this.element).append(view.element);
    return view;
  }

  /** Show one more view of the same request. */
  openSecond() {
    if (this.full || !this.facts.id) return;
    const view = this.open();
    view.attach(view.client.follow(this.facts.id));
    goTo(view.element);
  }

  /** The request has an id. @param {Following} request */
  bind(request) {
    const { id, traceId, source } = request;
    Object.assign(this.facts, { id, traceId, source });
    if (!traceId) this.refresh(this.views[0].client);
  }

  /** The request is there. */
  found() {
    $(".timeline", this.element).hidden = false;
    if (this.#remembered) return;
    this.#remembered = true;
    this.page.remember(this.facts.id, this.title);
    this.page.meet(this.facts.id);
  }

  /** A view has failed; without any entry there is no log to show. @param {TidegateError} error */
  failed(error) {
    if (error.code === "request_not_found") this.log.forgotten();
    $(".timeline", this.element).hidden = !this.log.epoch;
  }

  /** Content has come. */
  began() {
    if (this.order && this.facts.firstMs === null) this.facts.firstMs = performance.now() - this.#sentAt;
  }

  /** Get the facts that only the request's state has. @param {Tidegate} client */
  async refresh(client) {
    try {
      const state = await client.state(this.facts.id);
      const { facts } = this;
      facts.traceId ||= state.traceId;
      facts.source ||= state.source;
      facts.model = [...new Set([state.provider, state.model])].filter(Boolean).join(" · ");
      facts.cost = state.cost?.usd ?? null;
      if (OVER.has(state.assistantStatus) && state.usage.inputTokens + state.usage.outputTokens > 0) facts.usage = state.usage;
      this.log.known(state.position.offset, state.assistantStatus, state.position.epoch);
      this.log.tried(state.attempts);
      this.draw();
    } catch (error) {
      if (!(error instanceof TidegateError)) throw error; // the view itself says what keeps it from its request
      if (error.code === "request_not_found") this.log.forgotten();
    }
  }

  draw() {
    for (const view of this.views) view.draw();
  }

  /** Remove a view; the focus goes to its neighbour. @param {View} view */
  close(view) {
    const at = this.views.indexOf(view);
    this.views.splice(at, 1);
    view.element.remove();
    const next = this.views[Math.min(at, this.views.length - 1)];
    if (next) {
      goTo(next.element);
      this.draw();
    } else {
      this.remove();
      $("#prompt").focus();
    }
  }

  remove() {
    for (const view of this.views) view.end();
    this.views = [];
    this.element.remove();
    this.page.removed(this);
  }

  #changed() {
    if (this.log.gone) this.page.quiet();
    if (this.log.end && !this.#ended) {
      this.#ended = true;
      this.page.quiet();
      if (this.order) this.facts.wholeMs = performance.now() - this.#sentAt;
      if (this.views.length) this.refresh(this.views[0].client);
    }
    if (this.views.some((view) => view.away)) this.#look();
    this.page.tell(this);
    this.draw();
  }

  /** While a view is away, ask over HTTP how far the log is: the request goes on. */
  async #look() {
    if (this.#looking) return;
    this.#looking = true;
    for (let view = this.#away(); view; view = this.#away()) {
      await this.refresh(view.client);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    this.#looking = false;
  }

  #away() {
    return this.log.end || this.log.gone ? undefined : this.views.find((view) => view.away);
  }
}
