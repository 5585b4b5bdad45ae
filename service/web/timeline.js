// @ts-check
/**
 * The picture of a log: one row for its entries and one for each follower, over one axis of offsets.
 *
 * A follower's row shows which entries it got as they were written, and which it caught up on when it was back; so a cut
 * is a mark in a row that is whole in the end. The list below the picture says the same in words.
 */

import { $, el, oncePerFrame, svg, write } from "/web/dom.js";

/** @typedef {import("/web/log.js").Log} Log */
/** @typedef {import("/web/log.js").Lane} Lane */
/** @typedef {import("/web/log.js").Guest} Guest */
/** @typedef {Lane | (Guest & { behind: number })} Follower */
/** @typedef {import("/web/log.js").Span} Span */
/** @typedef {import("/web/log.js").Mark} Mark */

const LOG = "the log"; // the key of its row
const SHORTEST = 24; // offsets of the axis, so that a young log does not fill it
const ROOM = 1.08; // of the axis, for a log that goes on

/** @type {Record<Mark["kind"], string>} a shape for each kind of mark, at (0, 12): who leaves stands before an offset, who joins behind it. */
const SHAPES = {
  left: "M-10 7 L-2 17 M-2 7 L-10 17",
  joined: "M0 5 L8 12 L0 19 Z",
  snapshot: "M0 6 L5 12 L0 18 L-5 12 Z",
  attempt: "M0 5 L6 17 L-6 17 Z",
  end: "M-2 4 L2 4 L2 20 L-2 20 Z",
};

/** Draws a log into a `section.timeline`, whenever it changes. */
export class Timeline {
  #log;
  #root;
  /** @type {Map<Follower | string, any>} the row of each lane, of each guest by its key, and that of the log. */ #rows = new Map();
  #drawn = 0;

  /** @param {Element} root @param {Log} log */
  constructor(root, log) {
    this.#root = root;
    this.#log = log;
    const draw = oncePerFrame(() => this.#draw());
    log.addEventListener("change", draw);
    log.addEventListener("guests", draw);
    draw();
  }

  #draw() {
    const log = this.#log;
    const most = log.end ? Math.max(1, log.head) : Math.max(SHORTEST, log.head * ROOM);
    const ahead = log.head > log.read ? [{ from: log.read + 1, to: log.head, kind: "unread" }] : [];
    const state = log.end || (log.gone ? "gone" : "log");
    const told = log.gone ? `${count(log.head)}; the service does not know it any more` : `${count(log.head)}${log.end ? `, ${log.end}` : " so far"}`;
    this.#row(LOG, state, "The log", told);
    this.#paint(LOG, [...log.spans, ...ahead], log.marks, most, `The log: ${told}`);
    for (const [key, lane] of [...log.lanes.map(itself), ...log.guests]) {
      const waits = lane.state === "away" && !log.gone && lane.behind ? [{ from: lane.position + 1, to: log.head, kind: "waits" }] : [];
      const said = saidOf(lane, log.gone);
      this.#row(key, lane.state, lane.name, said);
      this.#paint(key, [...lane.spans, ...waits], lane.marks, most, `${lane.name}: ${said}`);
    }
    for (const [key, row] of this.#rows) {
      if (typeof key !== "string" || key === LOG || log.guests.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    this.#list();
  }

  /** @param {Follower | string} key @param {string} state @param {string} name @param {string} said */
  #row(key, state, name, said) {
    let row = this.#rows.get(key);
    if (!row) {
      row = el("div", { class: "row" }, el("span", { class: "name" }), svg("svg", { class: "track", role: "img" }), el("span", { class: "told" }));
      this.#rows.set(key, row);
      $(".rows", this.#root).append(row);
    }
    row.dataset.state = state;
    write($(".name", row), name);
    write($(".told", row), said);
  }

  /** @param {Follower | string} key @param {Span[]} spans @param {Mark[]} marks @param {number} most @param {string} label */
  #paint(key, spans, marks, most, label) {
    const picture = $("svg", this.#rows.get(key));
    const percent = (/** @type {number} */ offset) => `${((100 * offset) / most).toFixed(3)}%`;
    const bars = spans.map(({ from, to, kind }) =>
      svg("rect", { class: "span", "data-kind": kind, x: percent(from - 1), width: percent(to - from + 1), y: "6", height: "12" },
        svg("title", {}, `${WORDS[kind] ?? kind}: offsets ${from} to ${to}`)));
    const signs = marks.map(({ offset, kind, text }) =>
      svg("svg", { x: percent(offset), overflow: "visible" },
        svg("path", { class: `mark ${kind}`, d: SHAPES[kind] }, svg("title", {}, text))));
    picture.setAttribute("aria-label", label);
    picture.replaceChildren(...bars, ...signs);
  }

  #list() {
    const { notes, dropped } = this.#log;
    const list = $("ol", this.#root);
    write($(".events summary", this.#root), `What happened (${notes.length + dropped})`);
    this.#drawn = Math.max(this.#drawn, dropped);
    while (this.#drawn < notes.length + dropped) {
      const { at, text, kind } = notes[this.#drawn - dropped];
      list.append(el("li", { "data-kind": kind }, el("time", {}, `${(at / 1000).toFixed(2)} s`), " ", text));
      this.#drawn++;
    }
    while (list.children.length > notes.length) list.firstElementChild?.remove();
  }
}

/** @type {Record<string, string>} */
const WORDS = {
  state: "the request begins to run", text: "text", reasoning: "reasoning", tool: "tool calls", other: "other content",
  attempt: "an attempt broke off", end: "the end", unread: "written, and read by no view here",
  live: "as they were written", caught: "caught up", snapshot: "in one snapshot", waits: "wait for this view",
};

/** @param {number} entries */
function count(entries) {
  return `${entries} ${entries === 1 ? "entry" : "entries"}`;
}

/** @param {Lane} lane @returns {[Lane, Lane]} */
function itself(lane) {
  return [lane, lane];
}

/** What a lane's row says. @param {Follower} lane @param {boolean} gone whether the log is lost. */
function saidOf(lane, gone) {
  const caught = lane.caught ? `, ${lane.caught} of them caught up` : "";
  if (gone) return `has got ${lane.position}${caught}`;
  switch (lane.state) {
    case "waiting":
      return "joins";
    case "away":
      return lane.behind ? `away at ${lane.position}: ${lane.behind} ${lane.behind === 1 ? "waits" : "wait"} for it` : `away at ${lane.position}`;
    case "closed":
      return `closed at ${lane.position}`;
    default:
      return `has ${lane.position}${caught}`;
  }
}
