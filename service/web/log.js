// @ts-check
/**
 * What the page knows of one request's log: how far it is, what it holds, and who follows it from where to where.
 *
 * It is a model without a picture; `timeline.js` draws it. The event `change` means that it has changed.
 */

const MOST_SPANS = 400; // of the log, and of each lane: later ones are merged into the last
const MOST_NOTES = 60; // the oldest are dropped, and counted
const MOST_MARKS = 40; // of each lane
const MOST_GUESTS = 8; // followers in other tabs

/** @typedef {{ from: number, to: number, kind: string }} Span a stretch of offsets, both included. */
/** @typedef {{ offset: number, kind: "left" | "joined" | "snapshot" | "attempt" | "end", text: string }} Mark */
/** @typedef {{ at: number, text: string, kind: string }} Note */
/** @typedef {{ after: number, offset: number, recovered: boolean, epoch: string, state: string }} Joined */

/**
 * @typedef {object} Guest a follower in another tab of this browser, as that tab tells.
 * @property {string} name
 * @property {"waiting" | "following" | "away" | "closed"} state
 * @property {number} position
 * @property {number} caught
 * @property {Span[]} spans
 * @property {Mark[]} marks
 */

/** Add a stretch to spans, which are in order. @param {Span[]} spans @param {Span} span */
function extend(spans, span) {
  const last = spans.at(-1);
  if (last && last.to + 1 === span.from && (last.kind === span.kind || spans.length >= MOST_SPANS)) last.to = span.to;
  else if (spans.length < MOST_SPANS) spans.push({ ...span });
}

/** The kind of a frame's content. @param {any} frame */
function kindOf(frame) {
  const data = frame.data ?? {};
  if (frame.type === "complete" || frame.type === "error") return "end";
  if (data.attemptFailed) return "attempt";
  if (data.reasoning !== undefined || data.signature) return "reasoning";
  if (data.toolCall || data.toolCalls) return "tool";
  if (data.delta !== undefined) return "text";
  return data.refusal || data.vendor ? "other" : "state";
}

/** A log of entries with the offsets 1, 2, 3, …, and its followers. */
export class Log extends EventTarget {
  #began;
  #clock;
  epoch = "";
  /** The offset of the last entry that is known of. */
  head = 0;
  /** `completed`, `failed` or `cancelled`; empty before. */
  end = "";
  /** Whether the service does not know the request any more: then the log has no end, and does not go on. */
  gone = false;
  /** @type {Span[]} what the entries hold, as far as a view has read them. */ spans = [];
  /** @type {Mark[]} */ marks = [];
  /** @type {Lane[]} */ lanes = [];
  /** @type {Map<string, Guest & { behind: number }>} followers in other tabs. */ guests = new Map();
  /** @type {Note[]} */ notes = [];
  dropped = 0;
  #attempts = 0;

  /** @param {() => number} [clock] in milliseconds. */
  constructor(clock = () => performance.now()) {
    super();
    this.#clock = clock;
    this.#began = clock();
  }

  /** The last offset whose content is known. */
  get read() {
    return this.spans.at(-1)?.to ?? 0;
  }

  /** @param {string} name @returns {Lane} */
  lane(name) {
    const lane = new Lane(this, name);
    this.lanes.push(lane);
    this.changed();
    return lane;
  }

  /** The log has come so far, as somebody else says. @param {number} offset @param {string} state @param {string} [epoch] */
  known(offset, state, epoch = this.epoch) {
    if (epoch !== this.epoch) return;
    this.head = Math.max(this.head, offset);
    if (state === "completed" || state === "failed" || state === "cancelled") this.#ends(state);
    this.changed();
  }

  /** Show the followers of another tab in place of those that it had; the event is `guests`. @param {string} tab @param {string} epoch @param {Guest[]} lanes */
  host(tab, epoch, lanes) {
    for (const key of this.guests.keys()) if (key.startsWith(tab)) this.guests.delete(key);
    if (epoch === this.epoch) {
      this.head = Math.max(this.head, ...lanes.map(({ position }) => position));
      for (const lane of lanes.slice(0, MOST_GUESTS - this.guests.size)) {
        this.guests.set(`${tab} ${lane.name}`, { ...lane, name: `${lane.name}, other tab`, behind: Math.max(0, this.head - lane.position) });
      }
    }
    this.dispatchEvent(new Event("guests"));
  }

  /** The calls to models behind the log. @param {{ provider: string, model: string, error?: string, durationMs: number }[]} attempts */
  tried(attempts) {
    for (const attempt of attempts.slice(this.#attempts)) {
      const outcome = attempt.error ? `failed: ${attempt.error}` : "ok";
      this.note("attempt", `call to ${attempt.provider}, ${attempt.model}: ${outcome}, ${Math.round(attempt.durationMs)} ms`);
    }
    this.#attempts = Math.max(this.#attempts, attempts.length);
    this.changed();
  }

  /** @param {string} kind @param {string} text */
  note(kind, text) {
    this.notes.push({ at: this.#clock() - this.#began, text, kind });
    if (this.notes.length <= MOST_NOTES) return;
    this.notes.shift();
    this.dropped++;
  }

  /** Forget what another epoch had. @param {string} epoch */
  begin(epoch) {
    if (this.epoch === epoch) return;
    if (this.epoch) this.note("state", "the log has begun anew");
    this.epoch = epoch;
    this.head = 0;
    this.spans = [];
    this.marks = [];
    for (const lane of this.lanes) lane.forget();
  }

  /** @param {any} frame */
  write(frame) {
    const kind = frame.snapshot ? "unread" : kindOf(frame);
    const from = Math.max(frame.snapshot ? 1 : (frame.from ?? frame.offset), this.read + 1);
    this.head = Math.max(this.head, frame.offset);
    if (from > frame.offset) return;
    if (!this.spans.length && from > 1) extend(this.spans, { from: 1, to: from - 1, kind: "unread" });
    extend(this.spans, { from, to: frame.offset, kind });
    if (kind === "attempt") this.#broke(frame);
    if (kind === "end") this.#ends(frame.type === "complete" ? "completed" : frame.error.code === "cancelled" ? "cancelled" : "failed");
  }

  /** The service does not know the request any more. */
  forgotten() {
    if (this.gone || this.end || !this.epoch) return;
    this.gone = true;
    this.note("end", `the service does not know this request any more; ${this.head} of its entries were known here`);
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** @param {any} frame */
  #broke({ offset, data }) {
    const { code = "", provider = "", restart } = data.attemptFailed;
    const text = `an attempt broke off${provider && ` at ${provider}`}${code && `: ${code}`}${restart ? "; the answer begins again" : ""}`;
    this.marks.push({ offset, kind: "attempt", text });
    if (this.marks.length > MOST_MARKS) this.marks.shift();
    this.note("attempt", `${text} (offset ${offset})`);
  }

  /** @param {string} state */
  #ends(state) {
    if (this.end) return;
    this.end = state;
    this.marks.push({ offset: this.head, kind: "end", text: state });
    this.note("end", `the log ends at offset ${this.head}: ${state}`);
  }
}

/**
 * One follower of a log.
 *
 *     waiting --joined--> following --left--> away --joined--> following
 *                             |                |
 *                             +----- closed ---+
 */
export class Lane {
  #log;
  #head = 0;
  /** @type {"waiting" | "following" | "away" | "closed"} */ state = "waiting";
  position = 0;
  /** How many entries it has caught up on, if it was `late`. */
  caught = 0;
  /** Whether it has been away, or has come to a log that somebody else began. */
  late = false;
  /** @type {Span[]} of the kinds `live`, `caught` and `snapshot`. */ spans = [];
  /** @type {Mark[]} */ marks = [];

  /** @param {Log} log @param {string} name */
  constructor(log, name) {
    this.#log = log;
    this.name = name;
  }

  /** How many entries the log has beyond this follower. */
  get behind() {
    return Math.max(0, this.#log.head - this.position);
  }

  /** @param {Joined} joined @param {boolean} own whether the log is that of its own request. */
  joined({ after, offset, epoch, state }, own) {
    const again = this.state === "away";
    this.late ||= again || !own;
    this.#log.begin(epoch);
    this.#log.gone = false;
    this.#head = offset;
    if (this.state !== "closed") this.state = "following";
    this.#mark("joined", after, `${again ? "back" : "joined"} after offset ${after}`);
    const missed = offset - after;
    const more = missed > 0 ? `, ${missed} ${missed === 1 ? "entry" : "entries"} to catch up` : "";
    this.#log.note("joined", `${this.name} ${again ? "is back" : "follows"}, after offset ${after}${more}`);
    this.#log.known(offset, state === "pending" || state === "running" ? "" : state);
  }

  /** @param {any} frame */
  took(frame) {
    if (frame.snapshot) {
      this.#log.begin(frame.epoch ?? this.#log.epoch);
      this.spans = [];
      this.#mark("snapshot", frame.offset, `a snapshot of all up to offset ${frame.offset}`);
      this.#log.note("snapshot", `${this.name} gets a snapshot of all up to offset ${frame.offset}`);
    }
    const from = frame.snapshot ? 1 : (frame.from ?? frame.offset);
    const late = Math.min(frame.offset, this.#head); // entries up to here were there before the follower
    if (frame.snapshot) {
      extend(this.spans, { from, to: frame.offset, kind: "snapshot" });
    } else {
      if (from <= late) extend(this.spans, { from, to: late, kind: "caught" });
      if (late < frame.offset) extend(this.spans, { from: Math.max(from, late + 1), to: frame.offset, kind: "live" });
      if (this.late) this.caught += Math.max(0, late - from + 1);
    }
    this.position = frame.offset;
    this.#log.write(frame);
    this.#log.changed();
  }

  /** @param {string} why @param {boolean} own whether the follower has left by itself, so that the log goes on. */
  left(why, own) {
    if (this.state !== "following") return;
    this.state = "away";
    this.#mark("left", this.position, `${why} at offset ${this.position}`);
    this.#log.note("left", `${this.name}: ${why} at offset ${this.position}${own ? "; the log goes on" : ""}`);
    this.#log.changed();
  }

  close() {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#log.note("left", `${this.name} is closed; the request is not`);
    this.#log.changed();
  }

  forget() {
    this.spans = [];
    this.marks = [];
    this.position = 0;
    this.caught = 0;
  }

  /** @param {Mark["kind"]} kind @param {number} offset @param {string} text */
  #mark(kind, offset, text) {
    this.marks.push({ offset, kind, text });
    if (this.marks.length > MOST_MARKS) this.marks.shift();
  }
}
