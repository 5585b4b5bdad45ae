// @ts-check
/**
 * A view of a request: a follower with a client, and so a connection, of its own, which can be cut by itself.
 *
 *     sending --attach--> pending --> running <--unplug, plug--> cut
 *        |                   |           |
 *        +------- fail ------+-----------+--> completed, failed, cancelled, refused
 */

import { TidegateError } from "/client.js";
import { showAnswer } from "/web/answer.js";
import { $, copy, goTo, oncePerFrame, write } from "/web/dom.js";
import { withResults } from "/web/orders.js";
import { showFacts, showProblem, showResults } from "/web/parts.js";

/** @typedef {import("/client.js").Following} Following */
/** @typedef {import("/client.js").Tidegate} Tidegate */
/** @typedef {import("/web/section.js").Section} Section */
/** @typedef {import("/web/log.js").Lane} Lane */

const NEAR_PX = 40; // from the end of the text: then it scrolls along
const WORDS = /** @type {Record<string, string>} */ ({
  sending: "sending", pending: "waiting for the model", running: "streaming", cut: "unplugged", connecting: "connecting",
  waiting: "connection lost, coming back", completed: "complete", failed: "failed", cancelled: "cancelled",
  refused: "not connected", unsent: "not sent", away: "the service does not answer, trying again", gone: "not found",
});

/** One view, in an `article.view`. */
export class View {
  /** @type {Following | null} */ request = null;
  /** @type {TidegateError | null} */ #problem = null;
  #section;
  #lane;
  #unplugged = false;
  #pulled = false; // by its user while it followed, and not back yet
  #raw = false;
  #back = ""; // what was caught up on after the last cut

  /** Draw, at the next frame. */
  draw = oncePerFrame(() => this.#draw());

  /** @param {Section} section @param {Tidegate} client @param {Lane} lane */
  constructor(section, client, lane) {
    this.#section = section;
    this.#lane = lane;
    this.client = client;
    this.element = $("#view").content.cloneNode(true).firstElementChild;
    $("h3", this.element).textContent = lane.name;
    this.element.setAttribute("aria-label", `${lane.name} of ${section.title}`);
    $(".leave", this.element).setAttribute("aria-label", `Close ${lane.name}`);
    $(".text", this.element).setAttribute("aria-label", `The answer, ${lane.name}`);
    client.addEventListener("status", () => this.#connectionChanged());
    this.#listen();
    this.#draw();
  }

  /** Whether the view has lost its place at the log, and may come back. */
  get away() {
    return this.#lane.state === "away" && this.client.status !== "closed";
  }

  /** Follow a request. @param {Following} request */
  attach(request) {
    this.request = request;
    request.addEventListener("subscribed", (/** @type {any} */ { detail }) => this.#joined(detail));
    request.addEventListener("frame", (/** @type {any} */ { detail }) => this.#took(detail));
    request.addEventListener("change", this.draw);
    request.done.then(this.draw, (/** @type {unknown} */ error) => {
      const known = asKnown(error);
      if (known.code !== "cancelled") this.fail(known);
      this.draw();
    });
    this.draw();
  }

  /** Show an error in this view. @param {unknown} error */
  fail(error) {
    const known = asKnown(error);
    this.#problem = known.code === "unauthenticated" ? this.#wantKey() : known;
    this.#section.failed(known);
    this.#draw();
  }

  /** Ask for a key in the form, and return the error in its words: those of the service are for programs. */
  #wantKey() {
    const message = this.#section.page.wantKey();
    return new TidegateError({ code: "unauthenticated", message, remedy: "Enter a key, then try again." });
  }

  /** Stop following; the request goes on. */
  end() {
    this.request?.leave();
    this.client.close();
    this.#lane.close();
  }

  #listen() {
    const on = (/** @type {string} */ selector, /** @type {(button: any) => void} */ act) => {
      const button = $(selector, this.element);
      button.addEventListener("click", () => act(button));
    };
    on(".plug", () => this.#plug());
    on(".cancel", () => this.#cancel());
    on(".second", () => this.#section.openSecond());
    on(".raw", () => {
      this.#raw = !this.#raw;
      this.#draw();
    });
    on(".copy-text", (button) => copy(button, this.request?.text ?? ""));
    on(".copy-id", (button) => copy(button, this.#section.facts.id));
    on(".copy-trace", (button) => copy(button, this.#section.facts.traceId));
    on(".again", () => this.#again());
    on(".enter", () => {
      this.#section.page.wantKey();
      $("#key").focus();
    });
    on(".leave", () => {
      this.end();
      this.#section.close(this);
    });
    $(".results", this.element).addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const { order, page } = this.#section;
      const results = [...this.element.querySelectorAll(".results input")].map((input) => input.value);
      if (order && this.request) page.ask(withResults(order, this.request, results));
    });
  }

  #plug() {
    this.#unplugged = !this.#unplugged;
    if (this.#unplugged) this.client.unplug();
    else this.client.plug();
    this.draw();
  }

  async #cancel() {
    goTo(this.element); // the button is about to be disabled
    await this.request?.cancel().catch((/** @type {unknown} */ error) => this.fail(error));
  }

  #again() {
    const { order, page, facts, title } = this.#section;
    const unconnected = this.client.status === "closed"; // the request itself may be well
    this.#section.remove();
    if (facts.id && (!order || unconnected)) page.follow(facts.id, title);
    else if (order) page.ask(order);
  }

  #connectionChanged() {
    if (this.client.status !== "open" && this.request && !this.request.ended) {
      if (this.#unplugged && this.#lane.state === "following") {
        this.#pulled = true;
        this.#section.page.done("unplug");
      }
      this.#lane.left(this.#unplugged ? "unplugged" : "connection lost", this.#unplugged);
    }
    this.draw();
  }

  /** @param {import("/web/log.js").Joined} joined */
  #joined(joined) {
    const again = this.#lane.state === "away";
    this.#section.found();
    this.#lane.joined(joined, Boolean(this.#section.order) && this === this.#section.views[0]);
    const missed = joined.offset - joined.after;
    if (again) {
      this.#back = missed > 0
        ? `Back after offset ${joined.after}: ${missed} ${missed === 1 ? "entry" : "entries"} caught up on, none missing, none twice.`
        : `Back after offset ${joined.after}: the log had nothing new.`;
      if (this.#pulled) this.#section.page.done("replug");
      this.#pulled = false;
    }
    if (this.#section.views.length > 1 || (!this.#section.order && !again)) this.#section.page.done("second");
  }

  /** @param {any} frame */
  #took(frame) {
    const { delta, reasoning, toolCall, toolCalls, refusal } = frame.data ?? {};
    if (delta || reasoning || toolCall || toolCalls || refusal) {
      this.#section.began();
      if (this.#section.order) this.#section.page.done("ask");
    }
    if (frame.type === "complete") this.#section.facts.usage = frame.data.usage;
    this.#lane.took(frame);
  }

  #state() {
    const { request, client } = this;
    if (!request) return this.#problem ? "unsent" : "sending";
    if (this.#problem?.code === "request_not_found") return "gone";
    if (client.status === "closed" && this.#lane.state !== "closed" && !request.result) return "refused";
    if (request.ended) return request.state;
    if (this.#unplugged) return "cut";
    return client.status === "open" ? request.state : client.status === "idle" ? "connecting" : client.status;
  }

  /** @param {string} state */
  #note(state) {
    const { behind, position } = this.#lane;
    if (state === "cut") {
      return behind ? `The log went on without this view: ${behind} ${behind === 1 ? "entry waits" : "entries wait"} for it.` : `Unplugged at offset ${position}.`;
    }
    if (state === "waiting" || state === "connecting") {
      const { reason } = this.client;
      const on = reason?.code === "unreachable" ? "the view tries again by itself" : "it comes back by itself, and goes on from there";
      const lost = this.#lane.state === "away" ? `Lost at offset ${position}: ${on}` : "";
      return [lost, reason?.title ?? "", reason?.message ?? "", reason?.remedy ?? ""].filter(distinct).map(sentence).join(" ");
    }
    if (this.#section.facts.source === "cache") return "A replay of the log of the same prompt, from the cache: share is on.";
    if (this.#section.facts.source === "joined") return "Shares the call of the same prompt that was running: share is on.";
    return this.#back;
  }

  #draw() {
    const { element, request } = this;
    const state = this.#state();
    const note = this.#note(state);
    element.dataset.state = state;
    const silent = (state === "waiting" || state === "connecting") && this.client.reason?.code === "unreachable";
    write($(".status", element), WORDS[silent ? "away" : state] ?? state);
    write($(".note", element), note);
    $(".note", element).hidden = !note;
    this.#drawText();
    this.#drawButtons();
    showProblem($(".problem", element), this.#problem, this.#section.order !== null || Boolean(this.#section.facts.id));
    showFacts(element, this.#section.facts, request);
    showResults($(".results", element), this.#section.order ? request : null);
  }

  #drawText() {
    const text = $(".text", this.element);
    const followed = text.scrollHeight - text.scrollTop - text.clientHeight < NEAR_PX;
    if (this.request) showAnswer(text, this.request, this.#raw);
    if (followed) text.scrollTop = text.scrollHeight;
  }

  #drawButtons() {
    const { element, request, client } = this;
    const over = !request || request.ended || client.status === "closed";
    const focused = document.activeElement;
    const plug = $(".plug", element);
    write(plug, this.#unplugged && !over ? "Plug it back in" : "Pull the plug");
    plug.ariaPressed = String(this.#unplugged && !over);
    plug.disabled = $(".cancel", element).disabled = over;
    $(".second", element).disabled = !request || this.#section.full;
    $(".raw", element).ariaPressed = String(this.#raw);
    $(".copy-text", element).disabled = !request?.text;
    if (focused instanceof HTMLButtonElement && focused.disabled && element.contains(focused)) goTo(element);
  }
}

/** Whether a text is not empty and the first of its kind. @param {string} text @param {number} index @param {string[]} all */
function distinct(text, index, all) {
  return text && all.indexOf(text) === index;
}

/** @param {string} text */
function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
}

/** @param {unknown} error */
function asKnown(error) {
  return error instanceof TidegateError ? error : new TidegateError({ message: String(error) });
}
