// @ts-check
/** The answer of a request: its parts in their order, as they come. */

import { el, write } from "/web/dom.js";
import { render } from "/web/markdown.js";

/** @typedef {import("/client.js").Following} Following */
/** @typedef {import("/client.js").Part} Part */

/**
 * Show the answer so far: reasoning, text as Markdown, tool calls and refusals in their order; of a request with a schema
 * the JSON value so far; with `raw` the text as the log has it.
 *
 * @param {HTMLElement} parent
 * @param {Following} request
 * @param {boolean} raw
 */
export function showAnswer(parent, request, raw) {
  const json = request.partial !== undefined || structured(request.result);
  /** @type {Part[]} */
  const parts = raw ? [{ type: "raw", text: request.text }] : json ? withJson(request) : request.parts;
  parts.forEach((part, index) => {
    let node = /** @type {HTMLElement} */ (parent.children[index]);
    if (node?.dataset.part !== part.type) {
      const fresh = shell(part);
      if (node) node.replaceWith(fresh);
      else parent.append(fresh);
      node = fresh;
    }
    fill(node, part, request.ended || index < parts.length - 1);
  });
  while (parent.children.length > parts.length) parent.lastElementChild?.remove();
}

/** Whether a result is the JSON of a request with a schema. @param {any} result */
function structured(result) {
  if (result === undefined || result === null) return false;
  return typeof result !== "object" || !("text" in result && "toolCalls" in result);
}

/** The parts, with the JSON value in the place of the text. @param {Following} request @returns {Part[]} */
function withJson(request) {
  const valid = structured(request.result);
  const value = valid ? request.result : request.partial;
  const others = request.parts.filter(({ type }) => type !== "text");
  return [...others, { type: "json", text: JSON.stringify(value, null, 2), valid }];
}

/** @param {Part} part @returns {HTMLElement} */
function shell({ type }) {
  const data = { "data-part": type };
  switch (type) {
    case "raw":
      return el("pre", data);
    case "json":
      return el("figure", data, el("figcaption"), el("pre", { class: "code", tabindex: "0", "aria-label": "JSON" }));
    case "reasoning":
      return el("details", { ...data, open: "" }, el("summary"), el("div", { class: "thought" }));
    case "tool_call":
      return el("figure", data, el("figcaption"), el("pre", { class: "code", tabindex: "0", "aria-label": "Arguments" }));
    case "refusal":
      return el("p", data);
    case "vendor":
      return el("details", data, el("summary"), el("pre", { class: "code", tabindex: "0", "aria-label": "Block" }));
    default:
      return el("div", { ...data, class: "markdown" });
  }
}

/** @param {any} node @param {Part} part @param {boolean} over whether no more comes to this part. */
function fill(node, part, over) {
  const text = part.text ?? "";
  switch (part.type) {
    case "raw":
      return grow(node, text);
    case "json":
      write(node.firstChild, part.valid ? "JSON, valid by the schema" : "JSON so far: it always parses");
      return write(node.lastChild, text);
    case "reasoning":
      write(node.firstChild, part.redacted ? "Thought (hidden by the provider)" : over ? "Thought" : "Thinking …");
      return render(node.lastChild, text);
    case "tool_call":
      write(node.firstChild, `Calls ${part.name || "a tool"}`);
      return write(node.lastChild, pretty(part.arguments));
    case "refusal":
      return write(node, `The model refuses: ${text}`);
    case "vendor":
      write(node.firstChild, `A block that only ${part.dialect} has`);
      return write(node.lastChild, JSON.stringify(part.value, null, 2));
    default:
      return render(node, text);
  }
}

/** @param {HTMLElement} node @param {string} text */
function grow(node, text) {
  const data = /** @type {Text | null} */ (node.firstChild);
  if (data && text.startsWith(data.data)) data.appendData(text.slice(data.data.length));
  else node.replaceChildren(document.createTextNode(text));
}

/** Arguments in lines, once they are whole. @param {string} text */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
