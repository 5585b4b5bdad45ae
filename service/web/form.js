// @ts-check
/** The form: what is asked, of which model, and what the answer has to be. */

import { $, write } from "/web/dom.js";
import { SAMPLES } from "/web/samples.js";

const KEY = "tidegate-key";

/**
 * @typedef {object} Order a request to make.
 * @property {string} title
 * @property {Record<string, any>} body as for `POST /api/requests`.
 * @property {string} effort of reasoning; empty for a request without.
 */

/** The form, which hands what is asked to `ask`. */
export class AskForm {
  #kind = "text";
  /** @type {Record<string, string>} the schema and the tools, as edited. */ #codes = {};

  /** @param {(order: Order) => void} ask */
  constructor(ask) {
    $("#prompt").value = SAMPLES.text.prompt;
    $("#key").value = sessionStorage.getItem(KEY) ?? "";
    $("#key").addEventListener("change", () => {
      sessionStorage.setItem(KEY, this.key);
      this.listModels();
    });
    $("#kinds").addEventListener("change", () => this.#choose($("#kinds input:checked").value));
    $("#code").addEventListener("input", () => this.#complain(""));
    $("#ask").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) $("#ask").requestSubmit();
    });
    $("#ask").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const order = this.#order();
      if (order) ask(order);
    });
    this.#choose($("#kinds input:checked").value); // a browser may have kept another choice
  }

  /** The API key; empty for none. @returns {string} */
  get key() {
    return $("#key").value;
  }

  /** What is wrong, where the service does not let the key in. @returns {string} */
  get keyProblem() {
    return this.key ? "The service does not know this key." : "This service wants a key.";
  }

  /** Open the row of the key, and say why. @param {string} why @returns {string} the same */
  wantKey(why) {
    $("#key-row").open = true;
    write($("#key-problem"), why);
    return why;
  }

  /** Fill the list of models. It stays as it is while the service does not answer. */
  async listModels() {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : undefined;
    const response = await fetch("/v1/models", { headers }).catch(() => null);
    if (response?.status === 401) this.wantKey(this.keyProblem);
    if (!response?.ok) return;
    write($("#key-problem"), "");
    const { data } = await response.json();
    const chosen = $("#model").value;
    $("#model").replaceChildren(...data.map((/** @type {{ id: string }} */ { id }) => new Option(id, id, false, id === chosen)));
  }

  /** @param {string} kind */
  #choose(kind) {
    const before = SAMPLES[this.#kind];
    const sample = SAMPLES[kind];
    if (before.code) this.#codes[this.#kind] = $("#code").value;
    if (!$("#prompt").value.trim() || $("#prompt").value === before.prompt) $("#prompt").value = sample.prompt;
    this.#kind = kind;
    write($("#about"), sample.about);
    $("#code-row").hidden = !sample.code;
    $("#effort-row").hidden = kind !== "reasoning";
    write($("#code-row label"), sample.label ?? "");
    $("#code").value = this.#codes[kind] ?? JSON.stringify(sample.code ?? "", null, 2);
    this.#complain("");
  }

  /** @returns {Order | null} null, with the reason shown, where the schema or the tools are no JSON. */
  #order() {
    const prompt = $("#prompt").value;
    const options = { maxTokens: Number($("#tokens").value), dedupe: $("#share").checked };
    /** @type {Record<string, any>} */
    const body = { model: $("#model").value, messages: [{ role: "user", content: prompt }], options };
    try {
      if (this.#kind === "json") {
        body.schema = JSON.parse($("#code").value);
        body.options = { ...options, partial: true };
      } else if (this.#kind === "tools") {
        body.tools = JSON.parse($("#code").value);
        body.toolChoice = "required";
      }
    } catch (error) {
      this.#complain(`This is no JSON: ${/** @type {Error} */ (error).message}`);
      $("#code").focus();
      return null;
    }
    return { title: prompt, body, effort: this.#kind === "reasoning" ? $("#effort").value : "" };
  }

  /** @param {string} problem */
  #complain(problem) {
    write($("#code-problem"), problem);
    $("#code").setAttribute("aria-invalid", String(Boolean(problem)));
  }
}
