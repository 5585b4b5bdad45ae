// @ts-check
/** The parts of a view around its answer: what is known of the request, what went wrong, and the results of tools. */

import { $, el, write } from "/web/dom.js";

/** @typedef {import("/client.js").Following} Following */
/** @typedef {import("/client.js").TidegateError} TidegateError */
/** @typedef {import("/web/section.js").Facts} Facts */

/** @param {Element} root @param {Facts} facts @param {Following | null} request */
export function showFacts(root, facts, request) {
  const position = request?.position;
  const link = $(".id", root);
  write(link, facts.id);
  if (facts.id) link.href = `/?request=${encodeURIComponent(facts.id)}`;
  write($(".trace", root), facts.traceId);
  $(".copy-id", root).hidden = !facts.id;
  $(".copy-trace", root).hidden = !facts.traceId;
  write($(".model", root), facts.model || request?.model || "");
  write($(".source", root), facts.source);
  write($(".position", root), position ? `${position.epoch}:${position.offset}` : "");
  write($(".first", root), facts.firstMs === null ? "" : `${Math.round(facts.firstMs)} ms`);
  write($(".tokens", root), tokens(facts));
  write($(".cost", root), facts.usage ? cost(facts) : "");
}

/** @param {Facts} facts */
function tokens({ usage, firstMs, wholeMs }) {
  if (!usage) return "";
  const { inputTokens, outputTokens, reasoningTokens } = usage;
  const seconds = firstMs !== null && wholeMs !== null ? (wholeMs - firstMs) / 1000 : 0;
  const thought = reasoningTokens ? `, ${reasoningTokens} of them thought` : "";
  const rate = seconds > 0.05 && outputTokens > 1 ? `, ${Math.round(outputTokens / seconds)} a second` : "";
  return `${inputTokens} in, ${outputTokens} out${thought}${rate}`;
}

/** @param {Facts} facts */
function cost({ cost: usd, source }) {
  if (usd !== null) return Number(usd) ? `$${usd}` : "$0";
  return source === "upstream" ? "no price known" : "$0";
}

/**
 * Show an error where it happened: what it is, what to do about it, and a way on.
 *
 * @param {any} root
 * @param {TidegateError | null} problem
 * @param {boolean} repeatable
 */
export function showProblem(root, problem, repeatable) {
  root.hidden = !problem;
  if (!problem) return;
  const { code, title, message, remedy, errors } = problem;
  write($(".what", root), title && title !== message ? `${title}: ${message}` : message);
  write($(".remedy", root), remedy);
  $(".fields", root).replaceChildren(...errors.map((/** @type {any} */ one) => el("li", {}, [one.path, one.message].filter(Boolean).join(": "))));
  $(".again", root).hidden = !repeatable;
  $(".enter", root).hidden = code !== "unauthenticated";
  write($(".code", root), code);
  $(".code", root).href = `/errors/${encodeURIComponent(code)}`;
}

/** Offer to give the results of the tool calls, once the answer has ended with some. @param {any} form @param {Following | null} request */
export function showResults(form, request) {
  const calls = request?.state === "completed" ? request.toolCalls : [];
  form.hidden = !calls.length;
  if (form.hidden || form.children.length) return;
  const fields = calls.map(({ name, arguments: given }) =>
    el("label", {}, `Result of ${name}(${given})`, el("input", { required: "", autocomplete: "off" })));
  form.append(...fields, el("button", { type: "submit" }, calls.length > 1 ? "Send the results" : "Send the result"));
}
