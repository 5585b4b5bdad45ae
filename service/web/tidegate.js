// @ts-check
/**
 * Tidegate's client for browsers: no build step, no dependencies.
 *
 *     import { Tidegate } from "/client.js";
 *
 *     const tidegate = new Tidegate();
 *     const request = await tidegate.submit({ messages: [{ role: "user", content: "hello" }] });
 *     for await (const update of request) output.textContent = request.text;
 *     console.log(request.result, request.usage);
 *
 * A request outlives its connection. When the socket is lost, the client reconnects by itself and resumes after the last
 * offset it has: every event arrives once. A failure raises a `TidegateError`.
 */

/** @typedef {{ epoch: string, offset: number }} Position */
/** @typedef {{ id: string, name: string, arguments: string }} ToolCall */
/** @typedef {{ type: string, [field: string]: any }} Part of type `text`, `reasoning`, `tool_call`, `refusal` or `vendor`. */
/** @typedef {"idle" | "connecting" | "open" | "waiting" | "closed"} Status */
/** @typedef {{ text: string, replaces: boolean }} Update `text` is the new text; with `replaces` it is the whole text. */
/** @typedef {{ event: string, data: any, offset: number }} Message */
/** @typedef {{ id: string, user?: string, data?: any }} Member */
/** @typedef {{ code?: string, title?: string, message?: string, detail?: string, temporary?: boolean, remedy?: string, retryAfterMs?: number, errors?: any[] }} Problem */

const FIRST_WAIT_MS = 250; // the longest first delay before a retry; it doubles up to
const LONGEST_WAIT_MS = 8000;
const CONNECT_MS = 10_000; // until a connection has to be open
const QUIET_MS = 20_000; // of silence before a ping
const PONG_MS = 10_000; // of silence after a ping before the connection counts as lost
const CALL_MS = 30_000; // for one HTTP call
const CALL_TRIES = 6;
const MOST_BYTES = 64 * 1024 - 64; // of a frame, without its id
const NO_RETURN = 4500; // close codes from here on mean: don't reconnect
const AWAY = new Set([502, 503, 504]); // statuses of a service that is down for a moment
const OVER = new Set(["completed", "failed", "cancelled"]);
const PASSING = new Set([408, 425, 426, 429]); // statuses below 500 that do not refuse the client for good

/** An error of the service: decide by `code`, show `message`, and offer `remedy`. */
export class TidegateError extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(problem.detail || problem.message || problem.title || problem.code || "the request failed");
    this.name = "TidegateError";
    this.code = problem.code || "internal_error";
    this.title = problem.title || "";
    this.temporary = problem.temporary ?? false;
    this.remedy = problem.remedy || "";
    this.retryAfterMs = problem.retryAfterMs;
    this.errors = problem.errors ?? [];
  }
}

/**
 * A client of one service, over one socket, which is opened when the first request or channel is followed.
 *
 * It is an `EventTarget`: the event `status` means that `client.status` or `client.reason` has changed; the event
 * `channel` has as its `detail` a `Channel` to which an administrator has subscribed this client.
 */
export class Tidegate extends EventTarget {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Map<string, Followed>} */ #followed = new Map();
  /** @type {Map<number, Call>} */ #calls = new Map();
  /** @type {string | (() => string | Promise<string>)} */ #token;
  #url;
  #cut = false;
  #ready = false;
  #failures = 0;
  #nextId = 0;
  #heard = 0;
  #delayMs = -1;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {Status} */ #status = "idle";
  /** @type {TidegateError | null} the error that ended the client for good. */ #failure = null;
  /** @type {TidegateError | null} */ #reason = null;
  #asking = false;
  #wake = () => this.#soon();

  /**
   * @param {string} [url] the address of the service; by default the page's origin.
   * @param {{ token?: string | (() => string | Promise<string>) }} [options] `token` is an API key or a JWT, or a
   *   function that returns one, called for each connection, so that an expired one is replaced.
   */
  constructor(url = globalThis.location?.origin ?? "", { token = "" } = {}) {
    super();
    this.#url = url.replace(/\/$/, "");
    this.#token = token;
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
  }

  /** The state of the connection; `waiting` is the delay before the next attempt. */
  get status() {
    return this.#status;
  }

  /**
   * Why there is no connection, as far as the service says it: set after a refused upgrade, and when the client ends;
   * null while the connection is open. The client goes on trying while it is `temporary`.
   *
   * @returns {TidegateError | null}
   */
  get reason() {
    return this.#reason;
  }

  /**
   * Submit a request and follow it. Retried where the connection fails; the idempotency key keeps it one request. A page
   * that the service refuses gets the reason (`origin_not_allowed`) at once.
   *
   * @param {Record<string, any>} body as for `POST /api/requests`.
   * @param {{ idempotencyKey?: string, signal?: AbortSignal }} [options]
   * @returns {Promise<Following>}
   */
  async submit(body, { idempotencyKey = randomId(), signal } = {}) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey };
    const response = await this.#fetch("/api/requests", { method: "POST", headers, body: JSON.stringify(body), signal });
    const { requestId, position } = await response.json();
    const following = this.follow(requestId, { after: position });
    following.traceId = response.headers.get("x-trace-id") ?? "";
    following.source = response.headers.get("x-tidegate-source") ?? "";
    return following;
  }

  /**
   * Follow a request from its beginning, or after a position. A request that is followed already is returned.
   *
   * @param {string} requestId
   * @param {{ after?: Position }} [options]
   * @returns {Following}
   */
  follow(requestId, { after } = {}) {
    const key = `request ${requestId}`;
    const known = this.#followed.get(key);
    if (known instanceof Following) return known;
    const following = new Following(this.#link, requestId, after ?? null);
    this.#add(key, following);
    return following;
  }

  /**
   * Follow a channel. A channel that is followed already is returned.
   *
   * @param {string} name
   * @param {{ after?: Position, presence?: boolean, member?: any, client?: string }} [options] `after`: the position to
   *   begin after; without it, only what is published from now on. `presence`: whether to get presence events. `member`:
   *   this client's info as a member; with it, the client joins. `client`: names this client among the user's; by
   *   default a name for this page.
   * @returns {Channel}
   */
  channel(name, { after, ...options } = {}) {
    const key = `channel ${name}`;
    const known = this.#followed.get(key);
    if (known instanceof Channel) return known;
    const channel = new Channel(this.#link, name, after ?? null, options);
    this.#add(key, channel);
    return channel;
  }

  /**
   * Return the `RequestState` of a request.
   *
   * @param {string} requestId
   * @returns {Promise<any>}
   */
  async state(requestId) {
    return (await this.#fetch(`/api/requests/${encodeURIComponent(requestId)}`)).json();
  }

  /**
   * Cancel a request: the model is stopped, and every follower gets the end.
   *
   * @param {string} requestId
   * @returns {Promise<any>}
   */
  async cancel(requestId) {
    return (await this.#fetch(`/api/requests/${encodeURIComponent(requestId)}/cancel`, { method: "POST" })).json();
  }

  /**
   * Cancel a request and forget it: its followers get the end, and nothing of it is kept.
   *
   * @param {string} requestId
   * @returns {Promise<boolean>} whether it was there; false also where a first attempt has deleted it.
   */
  async delete(requestId) {
    try {
      await this.#fetch(`/api/requests/${encodeURIComponent(requestId)}`, { method: "DELETE" });
      return true;
    } catch (error) {
      if (error instanceof TidegateError && error.code === "request_not_found") return false;
      throw error;
    }
  }

  /** Close the socket and don't reconnect until `plug`. Requests go on. */
  unplug() {
    this.#cut = true;
    this.#lose(0);
    this.#say("waiting");
  }

  /** Reconnect after `unplug`. */
  plug() {
    this.#cut = false;
    this.#soon();
  }

  /** Close the client for good. Requests go on. */
  close() {
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    const error = new TidegateError({ code: "client_closed", message: "the client was closed" });
    this.#end(error);
  }

  // ------------------------------------------------------------------------------------------------- the connection

  /** The functions of the client that a followed request or channel uses. */
  #link = {
    /** @param {Record<string, any>} frame @param {boolean} [again] @returns {Promise<any>} */
    call: (frame, again = false) => this.#call(frame, again),
    /** @param {string} key */
    leave: (key) => this.#leave(key),
    /** @param {Followed} followed */
    restart: (followed) => this.#ready && this.#subscribe(followed),
    /** @param {string} requestId */
    cancel: (requestId) => this.cancel(requestId),
  };

  /** @param {string} key @param {Followed} followed */
  #add(key, followed) {
    if (this.#failure) return followed.fail(this.#failure);
    this.#followed.set(key, followed);
    if (this.#ready) this.#subscribe(followed);
    else this.#soon();
  }

  /** @param {string} key */
  #leave(key) {
    const followed = this.#followed.get(key);
    if (!followed || !this.#followed.delete(key) || !this.#ready || followed.ended) return;
    this.#send({ type: "unsubscribe", ...followed.name });
  }

  /** Connect now, if something needs a connection; check an open connection with a ping. */
  #soon() {
    if (this.#cut || this.#status === "closed") return;
    if (this.#socket) {
      if (this.#ready && performance.now() - this.#heard > 1000) this.#ping();
    } else if (this.#followed.size || this.#calls.size) {
      clearTimeout(this.#timer);
      this.#connect();
    }
  }

  async #connect() {
    if (this.#socket || this.#cut) return;
    const socket = new WebSocket(`${this.#url.replace(/^http/, "ws")}/ws`, "tidegate.v1");
    this.#socket = socket;
    this.#say("connecting");
    this.#delayMs = -1;
    let upgraded = false;
    const lost = (/** @type {number} */ code) => {
      if (this.#socket !== socket) return;
      this.#lose(code);
      if (!upgraded) this.#explain();
    };
    this.#timer = setTimeout(() => lost(0), CONNECT_MS);
    socket.onmessage = ({ data }) => this.#socket === socket && this.#hear(data);
    socket.onclose = ({ code }) => lost(code);
    socket.onopen = () => {
      upgraded = true;
      this.#opened(socket);
    };
  }

  /** Get the reason of a failed upgrade over HTTP, as a browser hides it; a refusal for good ends the client. */
  async #explain() {
    if (this.#asking) return;
    this.#asking = true;
    const error = await refusal(`${this.#url}/ws`);
    this.#asking = false;
    if (this.#ready || this.#cut || this.#status === "closed") return;
    if (!error.temporary) return this.#end(error);
    this.#reason = error;
    this.dispatchEvent(new Event("status"));
    if (error.retryAfterMs === undefined || this.#socket) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), error.retryAfterMs);
  }

  /** @param {WebSocket} socket */
  async #opened(socket) {
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (this.#socket !== socket) return;
      if (token) await this.#call({ type: "authenticate", token });
    } catch (error) {
      if (this.#socket !== socket) return;
      if (error instanceof TidegateError && error.code === "connection_lost") return;
      if (error instanceof TidegateError && !error.temporary) this.#end(error);
      else this.#lose(0);
      return;
    }
    if (this.#socket !== socket) return;
    this.#ready = true;
    this.#reason = null;
    this.#say("open");
    this.#listen();
    for (const followed of this.#followed.values()) this.#subscribe(followed);
    for (const [id, call] of this.#calls) if (call.again) this.#send({ ...call.frame, id });
  }

  /** @param {Followed} followed */
  #subscribe(followed) {
    const turn = followed.begin();
    const frame = { type: "subscribe", batch: true, ...followed.name, ...followed.from() };
    const acknowledged = (/** @type {any} */ ack) => {
      if (!followed.current(turn)) return;
      followed.acknowledge(ack.data);
      this.#settle(followed);
    };
    const refused = (/** @type {TidegateError} */ error) => {
      if (!followed.current(turn) || error.code === "connection_lost") return;
      if (error.code === "unrecoverable_position" && followed.forget()) this.#subscribe(followed);
      else if (error.temporary) this.#lose(0, error.retryAfterMs);
      else {
        followed.fail(error);
        this.#settle(followed);
      }
    };
    this.#post({ frame, again: false, resolve: acknowledged, reject: refused });
  }

  /** @param {Followed} followed */
  #settle(followed) {
    if (followed.ended) this.#followed.delete(followed.key);
  }

  /** @param {Record<string, any>} frame @param {boolean} [again] whether it is sent again after a reconnect. */
  #call(frame, again = false) {
    return new Promise((resolve, reject) => this.#post({ frame, again, resolve, reject }));
  }

  /** The call's functions run while the answer is parsed, before the next frame of the same message. @param {Call} call */
  #post(call) {
    if (this.#failure) return call.reject(this.#failure);
    if (this.#tooLarge(call)) return;
    const id = ++this.#nextId;
    this.#calls.set(id, call);
    if (this.#socket?.readyState === WebSocket.OPEN && (this.#ready || !call.again)) this.#send({ ...call.frame, id });
    else this.#soon();
  }

  /** @param {Record<string, any>} frame */
  #send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  /** Reject a frame that is too large: the service would close the socket for it. @param {Call} call */
  #tooLarge(call) {
    if (new Blob([JSON.stringify(call.frame)]).size < MOST_BYTES) return false;
    call.reject(new TidegateError({ code: "publication_too_large", message: "a frame has at most 64 KiB" }));
    return true;
  }

  #listen() {
    this.#heard = performance.now();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ping(), QUIET_MS);
  }

  /** Send a ping; any message that arrives in time counts as the answer. */
  #ping() {
    const asked = performance.now();
    this.#send({ type: "ping" });
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#heard < asked ? this.#lose(0) : this.#listen()), PONG_MS);
  }

  /** @param {number} code @param {number} [waitMs] */
  #lose(code, waitMs) {
    const socket = this.#socket;
    this.#socket = null;
    this.#ready = false;
    clearTimeout(this.#timer);
    socket?.close();
    const lost = new TidegateError({ code: "connection_lost", message: "the connection was lost", temporary: true });
    for (const [id, call] of this.#calls) {
      if (call.again) continue;
      this.#calls.delete(id);
      call.reject(lost);
    }
    if (code >= NO_RETURN && code < NO_RETURN + 100) {
      this.#end(new TidegateError(CLOSED[code] ?? { code: "forbidden", message: `the service closed the socket (${code})` }));
    } else if (!this.#cut && this.#status !== "closed") {
      this.#retry(waitMs);
    }
  }

  /** @param {number} [waitMs] */
  #retry(waitMs) {
    if (!this.#followed.size && !this.#calls.size) return this.#say("idle");
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#failures++, 10));
    const wait = waitMs ?? (this.#delayMs >= 0 ? this.#delayMs : Math.random() * longest);
    this.#say("waiting");
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  /** @param {TidegateError} error */
  #end(error) {
    this.#failure = error;
    this.#reason = error;
    const socket = this.#socket;
    this.#socket = null;
    this.#ready = false;
    clearTimeout(this.#timer);
    this.#say("closed");
    socket?.close();
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
    for (const followed of this.#followed.values()) followed.fail(error);
    this.#followed.clear();
  }

  /** @param {Status} status */
  #say(status) {
    if (this.#status === status || this.#status === "closed") return;
    this.#status = status;
    this.dispatchEvent(new Event("status"));
  }

  // ------------------------------------------------------------------------------------------------ received frames

  /** @param {string} data one frame, or several, a line each. */
  #hear(data) {
    this.#heard = performance.now();
    for (const line of data.split("\n")) if (line) this.#take(JSON.parse(line));
  }

  /** @param {any} frame */
  #take(frame) {
    if (frame.type === "disconnect") {
      const { reconnect, delayMs, reason } = frame.data;
      this.#delayMs = delayMs ?? -1;
      if (reconnect === false) this.#end(new TidegateError({ code: "shutting_down", message: reason }));
      return;
    }
    const call = this.#calls.get(frame.id);
    if (call && (frame.type === "error" ? !frame.terminal : true)) {
      this.#calls.delete(frame.id);
      if (frame.type === "error") call.reject(new TidegateError(frame.error));
      else call.resolve(frame);
      return;
    }
    const key = frame.channel === undefined ? `request ${frame.requestId}` : `channel ${frame.channel}`;
    const followed = this.#followed.get(key);
    if (!followed) return frame.type === "ack" && frame.channel !== undefined && this.#subscribed(frame);
    if (!followed.take(frame)) this.#subscribe(followed);
    else this.#failures = 0;
    this.#settle(followed);
  }

  /** An `ack` that nothing asked for: an administrator has subscribed this client. @param {any} frame */
  #subscribed({ id, channel: name, data }) {
    if (id !== undefined || !data) return;
    const channel = new Channel(this.#link, name, null, {});
    this.#followed.set(channel.key, channel);
    channel.begin();
    channel.acknowledge({ ...data, offset: data.after });
    this.dispatchEvent(new CustomEvent("channel", { detail: channel }));
  }

  // ------------------------------------------------------------------------------------------------------ over HTTP

  /** @param {string} path @param {RequestInit & { headers?: Record<string, string> }} [init] */
  async #fetch(path, init = {}) {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    const headers = { ...init.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    for (let attempt = 1; ; attempt++) {
      const timeout = AbortSignal.timeout(CALL_MS);
      const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
      let wait = Math.random() * FIRST_WAIT_MS * 2 ** attempt;
      try {
        const response = await fetch(this.#url + path, { ...init, headers, signal });
        if (response.ok) return response;
        const problem = await response.json().catch(() => ({ code: "", detail: `the service answered ${response.status}` }));
        const error = new TidegateError({ temporary: AWAY.has(response.status), ...problem });
        if (!AWAY.has(response.status) || attempt >= CALL_TRIES) throw error;
        wait = problem.retryAfterMs ?? wait;
      } catch (error) {
        if (error instanceof TidegateError || init.signal?.aborted) throw error;
        const reason = await refusal(`${this.#url}/ws`); // a browser hides why a call fails
        if (init.signal?.aborted) throw error;
        if (!reason.temporary) throw reason;
        if (attempt >= CALL_TRIES) throw reason.code === "upgrade_required" ? new TidegateError(HIDDEN) : reason;
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/** @typedef {{ frame: Record<string, any>, again: boolean, resolve: (frame: any) => void, reject: (error: any) => void }} Call */
/** @typedef {{ call: (frame: Record<string, any>, again?: boolean) => Promise<any>, leave: (key: string) => void, restart: (followed: Followed) => void, cancel: (requestId: string) => Promise<any> }} Link */

/** @type {Record<number, Problem>} */
const CLOSED = {
  4500: { code: "unauthenticated", message: "The service accepts no such key or token", remedy: "Use a valid key or token." },
  4501: { code: "invalid_request", message: "The service could not read what the client sent", remedy: "Load the page again." },
  4502: { code: "unauthenticated", message: "The service wants a key or a token", remedy: "Give the client a key or token." },
  4503: { code: "forced", message: "The service has closed this user's sockets" },
  4504: { code: "connection_limit", message: "The service has too many connections", remedy: "Close some of them first." },
};

/** @type {Problem} */
const SILENT = {
  code: "unreachable", message: "the service does not answer", temporary: true,
  remedy: "Check the address and the network, and whether the service runs.",
};

/** @type {Problem} where the address of the socket answers, and that of a call does not. */
const HIDDEN = {
  code: "unreachable", message: "the service answers, but this page can't read it", temporary: true,
  remedy: "Add the origin of this page to CORS_ALLOWED_ORIGINS, and let the proxies in between pass all calls.",
};

/**
 * Ask the address of the socket over plain HTTP why it refuses an upgrade.
 *
 * @param {string} url
 * @returns {Promise<TidegateError>} not `temporary` where the answer is a problem document that refuses the client.
 */
async function refusal(url) {
  const headers = { Accept: "application/problem+json, application/json" };
  const signal = AbortSignal.timeout(CONNECT_MS);
  const response = await fetch(url, { headers, cache: "no-store", signal }).catch(() => null);
  if (!response) return new TidegateError(SILENT);
  const { status } = response;
  const problem = await response.json().catch(() => null);
  if (!problem?.code) {
    return new TidegateError({ code: "unreachable", message: `the address of the socket answers ${status}`, temporary: true });
  }
  if (problem.code === "upgrade_required") {
    const message = "The service answers over HTTP, but its socket does not open";
    const remedy = "Let the proxies in between pass the upgrade of /ws and its Host, and allow the origin of this page.";
    return new TidegateError({ code: problem.code, message, remedy, temporary: true });
  }
  return new TidegateError({ temporary: status >= 500 || PASSING.has(status), ...problem });
}

/** A request or channel that is followed: its position, and which subscription is the current one. */
class Followed extends EventTarget {
  #turn = 0;

  /** @param {Link} link @param {string} key @param {Record<string, string>} name @param {Position | null} position */
  constructor(link, key, name, position) {
    super();
    /** @protected */ this.link = link;
    this.key = key;
    this.name = name;
    /** The position of the last event. @type {Position | null} */
    this.position = position;
    this.ended = false;
  }

  /** Begin a new subscription: answers to earlier ones are ignored. */
  begin() {
    return ++this.#turn;
  }

  /** @param {number} turn */
  current(turn) {
    return turn === this.#turn && !this.ended;
  }

  from() {
    return this.position ? { after: this.position } : {};
  }

  /** Stop following. The request or channel goes on. */
  leave() {
    this.link.leave(this.key);
  }

  /** @param {any} _data @returns {void} */
  acknowledge(_data) {}

  /** Drop the position; returns false where there is none. @returns {boolean} */
  forget() {
    return false;
  }

  /** @param {any} _frame @returns {boolean} whether the frame follows the position. */
  take(_frame) {
    return true;
  }

  /** @param {TidegateError} _error @returns {void} */
  fail(_error) {}
}

/**
 * A request's answer as it arrives. Iterate over it, or listen to `change`; `text` and the other fields are up to date.
 *
 * Two more events show the log behind it. `subscribed`, for each subscription, has `{ after, offset, recovered, state }`
 * as its `detail`: the offset that this client has, and the log's. `frame` has each frame that was taken, in order.
 *
 * A slow loop misses nothing: it gets all new text in one update.
 */
export class Following extends Followed {
  #void = false;
  #generation = 0;
  /** @type {Map<number | string, Part>} the parts by their index, and the calls by theirs. */ #known = new Map();
  /** @type {Part | undefined} the text, thought or refusal that goes on. */ #open;
  /** @type {((value: void) => void)[]} */ #waiting = [];
  /** @type {PromiseWithResolvers<any>} */ #outcome = withResolvers();

  /** @param {Link} link @param {string} id @param {Position | null} position */
  constructor(link, id, position) {
    super(link, `request ${id}`, { requestId: id }, position);
    this.#outcome.promise.catch(() => {});
    this.id = id;
    this.traceId = "";
    /** `upstream`, `joined` or `cache`, if this client has submitted the request. */
    this.source = "";
    this.state = "pending";
    this.model = "";
    /** The answer's text so far. */
    this.text = "";
    /** The model's reasoning so far, if it shows any. */
    this.reasoning = "";
    /** With `options.partial`: the JSON value so far. @type {any} */
    this.partial = undefined;
    /** @type {ToolCall[]} */
    this.toolCalls = [];
    /** The parts of the answer so far, in the order in which they came. @type {Part[]} */
    this.parts = [];
    /** After the end: the validated JSON, or `{ text, toolCalls, parts }`. @type {any} */
    this.result = undefined;
    /** @type {any} */
    this.usage = undefined;
    this.finishReason = "";
    /** @type {TidegateError | undefined} */
    this.error = undefined;
  }

  /** Resolves with the result, or rejects with the request's error. @returns {Promise<any>} */
  get done() {
    return this.#outcome.promise;
  }

  /** Cancel the request for all its followers. @returns {Promise<any>} */
  cancel() {
    return this.link.cancel(this.id);
  }

  /** @returns {AsyncGenerator<Update, void, void>} */
  async *[Symbol.asyncIterator]() {
    let given = 0;
    let generation = this.#generation;
    for (;;) {
      const replaces = generation !== this.#generation;
      if (replaces || this.text.length > given) {
        const text = replaces ? this.text : this.text.slice(given);
        generation = this.#generation;
        given = this.text.length;
        yield { text, replaces };
      } else if (this.error) {
        throw this.error;
      } else if (this.ended) {
        return;
      } else {
        await new Promise((resolve) => this.#waiting.push(resolve));
      }
    }
  }

  /** @param {{ epoch: string, offset: number, state: string, recovered: boolean }} data */
  acknowledge(data) {
    this.state = data.state;
    const detail = { ...data, after: this.position?.offset ?? 0 };
    if (!this.position) {
      this.position = { epoch: data.epoch, offset: 0 };
    } else if (!data.recovered || this.position.epoch !== data.epoch) {
      this.position = { epoch: data.epoch, offset: 0 };
      this.#void = true;
    } else if (OVER.has(data.state) && data.offset <= this.position.offset) {
      this.#finish();
    }
    this.dispatchEvent(new CustomEvent("subscribed", { detail }));
    this.#changed();
  }

  forget() {
    if (!this.position) return false;
    this.position = null;
    this.#void = true;
    return true;
  }

  /** @param {any} frame */
  take(frame) {
    if (!this.position) return true;
    const { offset } = frame;
    if (frame.snapshot) {
      this.#replace();
      this.position = { epoch: frame.epoch ?? this.position.epoch, offset };
      this.text = frame.data.text;
      this.reasoning = frame.data.reasoning ?? "";
      this.partial = frame.data.partial;
      this.toolCalls = (frame.data.toolCalls ?? []).map(plain);
      this.#restore(frame.data.parts ?? []);
      this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
      this.#changed();
      return true;
    }
    if (offset <= this.position.offset) return true;
    if ((frame.from ?? offset) !== this.position.offset + 1) return false;
    this.position = { epoch: this.position.epoch, offset };
    if (frame.type === "error") this.#broken(new TidegateError(frame.error));
    else if (frame.type === "complete") this.#complete(frame.data);
    else this.#update(frame.data);
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
    this.#changed();
    return true;
  }

  /** @param {TidegateError} error */
  fail(error) {
    if (this.ended) return;
    this.#broken(error);
    this.#changed();
  }

  /** @param {any} data */
  #update(data) {
    if (this.#void || data.attemptFailed?.restart) this.#replace();
    if (data.state) this.state = data.state;
    if (data.model) this.model = data.model;
    if (data.delta) this.text += data.delta;
    if (data.reasoning) this.reasoning += data.reasoning;
    if ("partial" in data) this.partial = data.partial;
    if (data.reasoning || data.signature) this.#think(data);
    if (data.delta) this.#say("text", data.delta, data.part ?? 0);
    if (data.refusal) this.#say("refusal", data.refusal, data.part ?? 0);
    if (data.vendor) this.#show(data.vendor, data.part);
    for (const piece of data.toolCalls ?? (data.toolCall ? [data.toolCall] : [])) {
      const call = (this.toolCalls[piece.index] ??= { id: "", name: "", arguments: "" });
      join(call, piece);
      const part = this.#callPart(piece.index);
      join(part, piece);
      if (piece.extra) part.extra = { ...part.extra, ...piece.extra };
    }
  }

  // The rules are those of `PartRow` in protocol/parts.py.

  /** @param {string} type @param {string} text @param {number} part @returns {Part} */
  #say(type, text, part) {
    if (this.#open?.type !== type || this.#known.get(part) !== this.#open) {
      this.#open = this.#push({ type, text: "" });
      this.#known.set(part, this.#open);
    }
    this.#open.text += text;
    return this.#open;
  }

  /** @param {any} data */
  #think({ reasoning = "", signature, redacted, part = 0 }) {
    if (redacted) this.#open = undefined;
    const thought = this.#say("reasoning", reasoning, part);
    if (!signature) return;
    thought.signature = signature;
    if (redacted) thought.redacted = true;
    this.#open = undefined;
  }

  /** @param {{ dialect: string, value: any }} vendor @param {number} part */
  #show({ dialect, value }, part) {
    const { type, text: _text, ...fields } = value;
    if (this.#open?.type === "text" && type === "text" && this.#known.get(part) === this.#open) {
      this.#open.extra = { ...this.#open.extra, [dialect]: fields };
      return;
    }
    this.#open = undefined;
    this.#push({ type: "vendor", dialect, value });
  }

  /** @param {number} index @returns {any} */
  #callPart(index) {
    let part = this.#known.get(`call ${index}`);
    if (!part) {
      this.#open = undefined;
      part = this.#push({ type: "tool_call", id: "", name: "", arguments: "" });
      this.#known.set(`call ${index}`, part);
    }
    return part;
  }

  /** @param {Part} part @returns {Part} */
  #push(part) {
    this.parts.push(part);
    return part;
  }

  /** Begin with the parts of a snapshot. @param {Part[]} parts */
  #restore(parts) {
    let calls = 0;
    this.parts = parts;
    parts.forEach((part, index) => this.#known.set(part.type === "tool_call" ? `call ${calls++}` : index, part));
    const last = parts.at(-1);
    this.#open = last && "text" in last && !last.signature ? last : undefined;
  }

  #replace() {
    this.#void = false;
    this.#generation++;
    this.text = "";
    this.reasoning = "";
    this.partial = undefined;
    this.toolCalls = [];
    this.parts = [];
    this.#known = new Map();
    this.#open = undefined;
  }

  /** @param {any} data */
  #complete(data) {
    this.state = "completed";
    this.result = data.coreResult;
    this.usage = data.usage;
    this.finishReason = data.finishReason;
    this.#finish();
  }

  /** @param {TidegateError} error */
  #broken(error) {
    this.state = error.code === "cancelled" ? "cancelled" : "failed";
    this.error = error;
    this.#finish();
  }

  #finish() {
    this.ended = true;
    if (this.error) this.#outcome.reject(this.error);
    else this.#outcome.resolve(this.result);
  }

  #changed() {
    for (const wake of this.#waiting.splice(0)) wake();
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * A channel. `message` events have a `Message` as their `detail`; `presence` events have `{ action, member }`, or
 * `{ action, members }` with the action `state`, which comes first and after each reconnect. `gap` means that messages
 * are missing which the channel does not keep any more; `failure` means that the channel is not followed any more.
 */
export class Channel extends Followed {
  #options;

  /** @param {Link} link @param {string} name @param {Position | null} position @param {{ presence?: boolean, member?: any, client?: string }} options */
  constructor(link, name, position, options) {
    super(link, `channel ${name}`, { channel: name }, position);
    this.channel = name;
    this.#options = { client: randomId(), ...options };
  }

  from() {
    return { ...this.#options, ...super.from() };
  }

  /**
   * Publish to the channel. Retried where the connection fails; the key keeps it one message.
   *
   * @param {string} event
   * @param {any} data
   * @param {{ key?: string }} [options]
   * @returns {Promise<{ position: Position, subscribers: number }>} the message's position in the channel, and how many
   *   sockets followed it.
   */
  async publish(event, data, { key = randomId() } = {}) {
    const ack = await this.link.call({ type: "publish", channel: this.channel, event, data, key }, true);
    const { epoch, offset, subscribers } = ack.data;
    return { position: { epoch, offset }, subscribers };
  }

  async #whoIsThere() {
    try {
      const { data } = await this.link.call({ type: "presence", channel: this.channel });
      this.dispatchEvent(new CustomEvent("presence", { detail: { action: "state", members: data.members } }));
    } catch (error) {
      if (!(error instanceof TidegateError)) throw error; // the connection is lost: asked again after the reconnect
    }
  }

  /** The members of the channel. @returns {Promise<Member[]>} */
  async presence() {
    return (await this.link.call({ type: "presence", channel: this.channel }, true)).data.members;
  }

  /** @param {{ epoch: string, offset: number, recovered?: boolean }} data */
  acknowledge(data) {
    const lost = this.position && (data.recovered === false || this.position.epoch !== data.epoch);
    if (!this.position || lost) this.position = { epoch: data.epoch, offset: data.offset };
    if (lost) this.dispatchEvent(new Event("gap"));
    if (this.#options.presence) this.#whoIsThere();
  }

  forget() {
    if (!this.position) return false;
    this.position = null;
    this.dispatchEvent(new Event("gap"));
    return true;
  }

  /** @param {any} frame */
  take(frame) {
    if (frame.type === "presence") {
      this.dispatchEvent(new CustomEvent("presence", { detail: frame.data }));
      return true;
    }
    if (frame.type === "error" && frame.terminal) this.fail(new TidegateError(frame.error));
    if (frame.type !== "update" || !this.position || frame.offset <= this.position.offset) return true;
    if (frame.offset !== this.position.offset + 1) return false;
    this.position = { epoch: this.position.epoch, offset: frame.offset };
    const { event, data, offset } = frame;
    this.dispatchEvent(new CustomEvent("message", { detail: { event, data, offset } }));
    return true;
  }

  /** @param {TidegateError} error */
  fail(error) {
    this.ended = true;
    this.dispatchEvent(new CustomEvent("failure", { detail: error }));
  }
}

/** A name that nobody else has; `crypto.randomUUID` is missing on pages without TLS. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Add a piece to a call. @param {any} call @param {any} piece */
function join(call, piece) {
  call.id ||= piece.id ?? "";
  call.name ||= piece.name ?? "";
  call.arguments += piece.arguments ?? "";
}

/** @param {ToolCall} call @returns {ToolCall} */
function plain({ id, name, arguments: text }) {
  return { id, name, arguments: text };
}

/** @returns {PromiseWithResolvers<any>} */
function withResolvers() {
  /** @type {any} */ const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
