// @ts-check
/** The documentation's page at `/docs`: shows `/openapi.json`. Text goes into the page as text, never as HTML. */

import { EXAMPLES } from "/web/docs-examples.js";

/** @typedef {Record<string, any>} Json */

/** @param {string} selector @param {ParentNode} [root] @returns {any} */
const $ = (selector, root = document) => root.querySelector(selector);

const LANGUAGE = "tidegate-language";
const METHODS = ["get", "post", "put", "patch", "delete"];
const LIMITS = /** @type {[string, string][]} */ ([
  ["minimum", "≥ "], ["maximum", "≤ "], ["minLength", "characters ≥ "], ["maxLength", "characters ≤ "],
  ["minItems", "items ≥ "], ["maxItems", "items ≤ "], ["maxProperties", "pairs ≤ "], ["pattern", "matches "], ["format", ""],
]);

/** @type {Record<string, string>} what people look for an operation by, and what it does not say itself. */
const KEYWORDS = {
  followRequest: "sse resume reconnect offset replay stream",
  openSocket: "websocket resume reconnect offset replay stream",
};
const STREAM = "sse stream streaming events"; // the keywords of each operation whose answer can be one

/** @type {Json} */
let api = {};
/** @type {{ view: HTMLDetailsElement, link: HTMLAnchorElement, words: string, codes: Set<string> }[]} */
const shown = [];
let language = localStorage.getItem(LANGUAGE) ?? "curl";

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`openapi.json can't be read: ${response.status}`);
  api = await response.json();
  show();
} catch (error) {
  $("#notice").textContent = String(error);
  $("#notice").hidden = false;
}

function show() {
  $("#intro").append(...markdown(api.info.description));
  for (const tag of api.tags) {
    const operations = operationsOf(tag.name);
    const group = element("section", { className: "group" }, element("h2", {}, tag.name), ...markdown(tag.description));
    $("#contents").append(element("h2", {}, tag.name));
    for (const operation of operations) {
      const view = operationView(operation);
      const link = element("a", { href: `#${view.id}`, title: `${operation.method} ${operation.path}` }, operation.summary);
      shown.push({ view, link, words: wordsOf(operation), codes: codesOf(operation) });
      group.append(view);
      $("#contents").append(link);
    }
    $("#groups").append(group);
  }
  for (const [code, problem] of Object.entries(api["x-errors"] ?? {})) $("#codes").append(errorView(code, problem));
  $("#errors").hidden = false;
  $("#contents").append(element("h2", {}, element("a", { href: "#errors" }, "Errors")));
  $("#search").addEventListener("input", search);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    $("#search").focus();
  });
  addEventListener("hashchange", open);
  $("#search").value = new URLSearchParams(location.search).get("q") ?? "";
  search();
  open();
}

/** Open the operation that the address names. */
function open() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

/** Show the operations that have all words of the search; an error's code counts as a whole only. */
function search() {
  const words = $("#search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const { view, link, words: text, codes: own } of shown) {
    const found = words.every((/** @type {string} */ word) => text.includes(word) || own.has(word));
    view.hidden = link.hidden = !found;
    link.classList.toggle("hidden", !found);
    count += Number(found);
  }
  let codes = 0;
  for (const view of $("#codes").children) {
    view.hidden = !words.every((/** @type {string} */ word) => view.textContent.toLowerCase().includes(word));
    codes += Number(!view.hidden);
  }
  for (const group of document.querySelectorAll("#groups .group")) {
    /** @type {HTMLElement} */ (group).hidden = !group.querySelector(".operation:not([hidden])");
  }
  $("#errors").hidden = codes === 0;
  $("#intro").hidden = words.length > 0;
  $("#nothing").hidden = count + codes > 0;
  $("#count").textContent = words.length ? `${count} of ${shown.length} operations` : `${shown.length} operations`;
}

/** @param {string} tag */
function operationsOf(tag) {
  return Object.entries(api.paths).flatMap(([path, methods]) => METHODS.filter((method) => methods[method]?.tags.includes(tag))
    .map((method) => ({ .../** @type {Json} */ (methods[method]), path, method: method.toUpperCase() })));
}

/** @param {Json} operation */
function wordsOf(operation) {
  const names = (operation.parameters ?? []).map(resolve).flatMap((/** @type {Json} */ one) => [one.name, one.description ?? ""]);
  const body = bodyOf(operation);
  const properties = body ? Object.entries(resolve(body.schema).properties ?? {}) : [];
  const fields = properties.flatMap(([name, one]) => [name, resolve(one).description ?? one.description ?? ""]);
  const kinds = Object.values(operation.responses).flatMap((answer) => Object.keys(answer.content ?? {}));
  const known = [KEYWORDS[operation.operationId] ?? "", kinds.includes("text/event-stream") ? STREAM : ""];
  return [operation.method, operation.path, operation.operationId, operation.summary, operation.description, ...operation.tags,
    ...names, ...fields, ...known].join(" ").toLowerCase();
}

/** @param {Json} operation @returns {Set<string>} */
function codesOf(operation) {
  return new Set(Object.values(operation.responses).flatMap((answer) => answer["x-codes"] ?? []));
}

/** @param {Json} operation @returns {HTMLDetailsElement} */
function operationView(operation) {
  const view = $("#operation").content.cloneNode(true).firstElementChild;
  view.id = operation.operationId;
  $(".method", view).textContent = operation.method;
  $(".method", view).dataset.method = operation.method.toLowerCase();
  $(".path", view).textContent = operation.path;
  $(".what", view).textContent = operation.summary;
  view.addEventListener("toggle", () => {
    if (view.open && !view.dataset.filled) fill(view, operation);
  });
  return view;
}

/** Fill an operation when it is opened for the first time. @param {any} view @param {Json} operation */
function fill(view, operation) {
  view.dataset.filled = "yes";
  $(".text", view).append(...markdown(operation.description ?? ""));
  showExamples(view, operation);
  const parameters = (operation.parameters ?? []).map(resolve);
  $(".parameters", view).hidden = parameters.length === 0;
  $(".fields", view).append(...parameters.map((/** @type {Json} */ one) =>
    fieldView(one.name, one.schema, one.required, one.description, one.in)));
  const body = bodyOf(operation);
  if (body) {
    $(".body", view).hidden = false;
    $(".body", view).append(...schemaViews(body.schema));
  }
  if (operation["x-frames"]) {
    $(".frames", view).hidden = false;
    $(".frames", view).append(...operation["x-frames"].map((/** @type {Json} */ one) => fieldView(nameOf(one), one)));
  }
  $(".answers", view).append(...Object.entries(operation.responses).map(([status, answer]) => answerView(status, answer)));
}

/** @param {any} view @param {Json} operation */
function showExamples(view, operation) {
  const buttons = Object.keys(EXAMPLES).map((name) => element("button", { type: "button" }, name));
  const draw = () => {
    for (const button of buttons) button.ariaPressed = String(button.textContent === language);
    $("pre", view).textContent = EXAMPLES[language](operation, exampleOf(operation));
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      language = button.textContent;
      localStorage.setItem(LANGUAGE, language);
      draw();
    });
  }
  $(".tabs", view).append(...buttons);
  view.addEventListener("toggle", draw);
  $(".take", view).addEventListener("click", () => copy($("pre", view), $(".take", view)));
  if (!(language in EXAMPLES)) language = "curl";
  draw();
}

/** What the example of an operation calls. @param {Json} operation */
function exampleOf(operation) {
  let path = operation.path;
  for (const one of (operation.parameters ?? []).map(resolve)) {
    const value = String(one.example ?? one.name);
    if (one.in === "path") path = path.replace(`{${one.name}}`, value.split("/").map(encodeURIComponent).join("/"));
  }
  const kinds = Object.values(operation.responses).flatMap((answer) => Object.keys(answer.content ?? {}));
  const open = operation.security.length === 0 || operation.security.some((/** @type {Json} */ one) => !Object.keys(one).length);
  return {
    url: location.origin + path,
    body: bodyOf(operation)?.example,
    streams: operation.method === "GET" && kinds.includes("text/event-stream"),
    json: kinds.includes("application/json"),
    key: !open,
    socket: "x-frames" in operation,
  };
}

/** @param {HTMLElement} source @param {HTMLElement} button */
async function copy(source, button) {
  const text = source.textContent ?? "";
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // without HTTPS there is no clipboard: the text is selected, to be copied by hand
    getSelection()?.selectAllChildren(source);
    button.textContent = "Selected";
    return;
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

/** @param {string} status @param {Json} answer */
function answerView(status, answer) {
  const content = Object.entries(answer.content ?? {});
  const code = element("span", { className: "status-code" }, status);
  code.dataset.kind = status[0];
  const kinds = element("span", { className: "kind" }, content.map(([kind]) => kind).join(", "));
  const view = element("details", { className: "field answer" }, element("summary", {}, code, " ", kinds));
  view.addEventListener("toggle", () => {
    if (view.childElementCount > 1) return;
    const headers = Object.keys(answer.headers ?? {});
    view.append(element("div", { className: "inner" }, ...markdown(answer.description),
      ...content.flatMap(([, { schema }]) => schemaViews(schema)),
      ...headers.map((name) => fieldView(name, api.components.headers[name].schema, false, api.components.headers[name].description, "header"))));
  });
  return view;
}

/** @param {string} code @param {Json} problem */
function errorView(code, problem) {
  const again = problem.temporary ? "temporary" : "";
  const close = problem.close ? `closes a socket with ${problem.close}` : "";
  const kind = element("span", { className: "kind" }, [problem.status, again, close].filter(Boolean).join(", "));
  return element("div", { className: "field" }, element("code", {}, element("a", { href: `/errors/${code}` }, code)), " ", kind,
    element("p", {}, `${problem.title}. ${problem.remedy}`));
}

/** The fields of a schema; or one line, if it has none. @param {Json} schema @returns {Node[]} */
function schemaViews(schema) {
  const found = resolve(schema);
  if (found.properties && Object.keys(found.properties).length) {
    return Object.entries(found.properties).map(([name, one]) =>
      fieldView(name, one, found.required?.includes(name), one.description ?? ""));
  }
  const choices = choicesOf(found);
  if (choices.length > 1) return choices.map((one) => fieldView(kindOf(one), one));
  if (found.items) return schemaViews(found.items);
  return [element("p", { className: "kind" }, kindOf(schema))];
}

/**
 * A field; what is within it is shown when it is opened.
 *
 * @param {string} name @param {Json} schema @param {boolean} [must] @param {string} [text] @param {string} [place]
 */
function fieldView(name, schema, must = false, text = resolve(schema).description ?? "", place = "") {
  const kind = [place, kindOf(schema) === name ? "" : kindOf(schema), ...limitsOf(schema)].filter(Boolean).join(" · ");
  const parts = [element("code", {}, name), " ", element("span", { className: "kind" }, kind),
    ...(must ? [" ", element("span", { className: "must" }, "required")] : [])];
  if (!isDeep(schema)) return element("div", { className: "field" }, ...parts, ...markdown(text));
  const view = element("details", { className: "field" }, element("summary", {}, ...parts, ...markdown(text)));
  view.addEventListener("toggle", () => {
    if (view.childElementCount === 1) view.append(element("div", { className: "inner" }, ...schemaViews(schema)));
  });
  return view;
}

/** Whether a schema has fields, at any depth. @param {Json} schema @returns {boolean} */
function isDeep(schema) {
  if (schema.$ref) return Object.keys(resolve(schema).properties ?? {}).length > 0;
  return choicesOf(schema).some(isDeep) || Boolean(schema.items && isDeep(schema.items))
    || Object.keys(schema.properties ?? {}).length > 0;
}

/** @param {Json} schema @returns {string} */
function kindOf(schema) {
  if (schema.$ref) return nameOf(schema);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(kindOf).join(" or ");
  if (schema.enum) return schema.enum.map((/** @type {unknown} */ value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `list of ${kindOf(schema.items ?? {})}`;
  return schema.type ?? "any JSON";
}

/** @param {Json} schema @returns {string[]} */
function limitsOf(schema) {
  const own = LIMITS.filter(([name]) => name in schema).map(([name, word]) => word + schema[name]);
  const within = choicesOf(schema).flatMap((one) => (one.$ref ? [] : limitsOf(one)));
  const initial = "default" in schema && isSmall(schema.default) ? [`default ${JSON.stringify(schema.default)}`] : [];
  return [...own, ...within, ...initial];
}

/** @param {unknown} value */
function isSmall(value) {
  return value !== "" && (typeof value !== "object" || value === null);
}

/** @param {Json} schema @returns {Json[]} */
function choicesOf(schema) {
  return (schema.anyOf ?? schema.oneOf ?? []).filter((/** @type {Json} */ one) => one.type !== "null");
}

/** @param {Json} reference */
function nameOf(reference) {
  return reference.$ref.split("/").at(-1);
}

/** @param {Json} value @returns {Json} */
function resolve(value) {
  if (!value.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((/** @type {Json} */ within, /** @type {string} */ name) => within[name], api);
}

/** @param {Json} operation @returns {Json | undefined} */
function bodyOf(operation) {
  return operation.requestBody?.content["application/json"];
}

/** Paragraphs, lists, code and links. @param {string} text @returns {Node[]} */
function markdown(text) {
  return text.trim().split(/\n\n+/).filter(Boolean).map((block) => {
    const items = block.split(/^- /m).slice(1);
    if (block.startsWith("- ")) return element("ul", {}, ...items.map((item) => element("li", {}, ...inline(item.trim()))));
    return element("p", {}, ...inline(block.replace(/\n/g, " ")));
  });
}

/** @param {string} text @returns {(Node | string)[]} */
function inline(text) {
  return text.split(/(\[[^\]]*\]\([^)\s]*\)|`[^`]*`)/).map((part) => {
    const link = part.match(/^\[([^\]]*)\]\((\/[^)\s]*)\)$/);
    if (link) return element("a", { href: link[2] }, ...inline(link[1]));
    return /^`[^`]+`$/.test(part) ? element("code", {}, part.slice(1, -1)) : part;
  });
}

/** @param {string} name @param {Json} attributes @param {(Node | string)[]} children @returns {any} */
function element(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}
