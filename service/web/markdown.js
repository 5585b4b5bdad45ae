// @ts-check
/**
 * Markdown as DOM nodes, for text that nobody vouches for.
 *
 * Every character of the text ends in a text node or, if it is a checked address, in an `href`: HTML is shown as text,
 * links lead to `http:`, `https:` and `mailto:` only, and images become links, so nothing is loaded. `render` may be called with each
 * longer text: blocks whose source is unchanged keep their nodes, so a stream neither flickers nor loses a selection.
 *
 * Headings, paragraphs, lists, quotes, fenced code, tables and rules; code, emphasis, strike-through and links.
 */

import { el } from "/web/dom.js";

const DEEPEST = 6; // levels of lists, quotes and emphasis; deeper ones stay text
const NESTED = 2; // blanks by which an item of an inner list stands further in
const LONGEST_LABEL = 500; // characters of a link's text, and of its address
const LONGEST_ADDRESS = 2000;
const SAFE = new Set(["http:", "https:", "mailto:"]);
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)(.*)$/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** @typedef {{ kind: string, lines: string[], info?: string, level?: number }} Block */

/**
 * Show a text, keeping the nodes of blocks that are as they were.
 *
 * @param {HTMLElement} parent holds nothing but what this function puts there.
 * @param {string} text
 */
export function render(parent, text) {
  const found = blocks(text.split("\n"));
  found.forEach((block, index) => {
    const source = `${block.kind} ${block.info ?? ""}\n${block.lines.join("\n")}`;
    const shown = /** @type {any} */ (parent.children[index]);
    if (shown?.source === source) return;
    if (shown && block.kind === "code" && shown.kind === "code") {
      grow(shown, block); // a long listing keeps its node while it grows
    } else {
      const node = node_of(block, 0);
      if (shown) shown.replaceWith(node);
      else parent.append(node);
    }
    Object.assign(parent.children[index], { source, kind: block.kind });
  });
  while (parent.children.length > found.length) parent.lastElementChild?.remove();
}

/** @param {any} shown @param {Block} block */
function grow(shown, block) {
  const text = block.lines.join("\n");
  const data = shown.firstChild.firstChild;
  if (text.startsWith(data.data)) data.appendData(text.slice(data.data.length));
  else data.data = text;
}

/** Split lines into blocks. @param {string[]} lines @returns {Block[]} */
export function blocks(lines) {
  /** @type {Block[]} */ const found = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (!line.trim()) {
      at++;
    } else if (fence) {
      at = fenced(lines, at, fence, found);
    } else if (heading) {
      found.push({ kind: "heading", level: heading[1].length, lines: [heading[2].replace(/[ \t]+#+[ \t]*$/, "")] });
      at++;
    } else if (RULE.test(line)) {
      found.push({ kind: "rule", lines: [] });
      at++;
    } else if (QUOTE.test(line)) {
      at = run(lines, at, found, "quote", (next) => QUOTE.test(next));
    } else if (ITEM.test(line)) {
      at = listed(lines, at, found);
    } else if (line.includes("|") && DELIMITERS.test(lines[at + 1] ?? "") && (lines[at + 1] ?? "").includes("-")) {
      at = run(lines, at, found, "table", (next) => next.includes("|"));
    } else {
      at = run(lines, at, found, "paragraph", (next) => next.trim() !== "" && !begins(next));
    }
  }
  return found;
}

/** Whether a line ends the paragraph before it. @param {string} line */
function begins(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

/** @param {string[]} lines @param {number} at @param {Block[]} found @param {string} kind @param {(line: string) => boolean} belongs */
function run(lines, at, found, kind, belongs) {
  let end = at + 1;
  while (end < lines.length && belongs(lines[end])) end++;
  found.push({ kind, lines: lines.slice(at, end) });
  return end;
}

/** @param {string[]} lines @param {number} at @param {RegExpExecArray} fence @param {Block[]} found */
function fenced(lines, at, fence, found) {
  const [, mark, info] = fence;
  let end = at + 1;
  const closes = (/** @type {string} */ line) => line.trim().length >= mark.length && line.trim() === mark[0].repeat(line.trim().length);
  while (end < lines.length && !closes(lines[end])) end++;
  found.push({ kind: "code", info: info.trim(), lines: lines.slice(at + 1, end) });
  return end + 1;
}

/** @param {string[]} lines @param {number} at @param {Block[]} found */
function listed(lines, at, found) {
  const [, indent = "", mark = ""] = ITEM.exec(lines[at]) ?? [];
  const ordered = /\d/.test(mark);
  const belongs = (/** @type {number} */ index) => {
    const line = lines[index] ?? "";
    const item = ITEM.exec(line);
    if (item && item[1].length < indent.length + NESTED) return /\d/.test(item[2]) === ordered && !RULE.test(line);
    return /^\s+\S/.test(line) || (line.trim() !== "" && !begins(line) && lines[index - 1].trim() !== "");
  };
  let end = at + 1;
  while (end < lines.length && (belongs(end) || (!lines[end].trim() && belongs(end + 1)))) end++;
  found.push({ kind: ordered ? "ol" : "ul", lines: lines.slice(at, end) });
  return end;
}

/** @param {Block} block @param {number} depth @returns {HTMLElement} */
function node_of(block, depth) {
  const text = block.lines.join("\n");
  switch (depth < DEEPEST ? block.kind : block.kind === "code" ? "code" : "paragraph") {
    case "heading":
      return el("p", { class: `h h${block.level}`, role: "heading", "aria-level": String(Math.min(6, (block.level ?? 1) + 3)) }, ...inline(text));
    case "rule":
      return el("hr");
    case "code":
      return el("pre", { class: "code", tabindex: "0", "aria-label": block.info ? `Code, ${block.info}` : "Code" }, el("code", {}, document.createTextNode(text)));
    case "quote":
      return el("blockquote", {}, ...children(block.lines.map((line) => line.replace(QUOTE, "")), depth));
    case "ul":
    case "ol":
      return list(block, depth);
    case "table":
      return table(block.lines);
    default:
      return el("p", {}, ...inline(text));
  }
}

/** @param {string[]} lines @param {number} depth @returns {HTMLElement[]} */
function children(lines, depth) {
  return blocks(lines).map((block) => node_of(block, depth + 1));
}

/** @param {Block} block @param {number} depth */
function list(block, depth) {
  /** @type {string[][]} */ const items = [];
  let width = 2;
  const indent = ITEM.exec(block.lines[0])?.[1].length ?? 0;
  for (const line of block.lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length < indent + NESTED) {
      width = item[1].length + item[2].length + Math.min(item[3].length || 1, 4);
      items.push([item[4]]);
    } else {
      items.at(-1)?.push(line.slice(Math.min(width, line.length - line.trimStart().length)));
    }
  }
  const node = el(block.kind, {}, ...items.map((lines) => el("li", {}, ...tight(lines, depth))));
  if (block.kind === "ol") node.start = Number.parseInt(block.lines[0].trim(), 10);
  return node;
}

/** The content of an item: without a paragraph around it, if there is one only. @param {string[]} lines @param {number} depth */
function tight(lines, depth) {
  const nodes = children(lines, depth);
  return nodes[0]?.tagName === "P" && !nodes[0].className ? [...nodes[0].childNodes, ...nodes.slice(1)] : nodes;
}

/** @param {string[]} lines */
function table(lines) {
  const cells = (/** @type {string} */ line) => line.trim().replace(/^\||\|$/g, "").split("|");
  const row = (/** @type {string} */ line, /** @type {string} */ tag) => el("tr", {}, ...cells(line).map((cell) => el(tag, {}, ...inline(cell.trim()))));
  const body = lines.slice(2).map((line) => row(line, "td"));
  return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, el("table", {}, row(lines[0], "th"), ...body));
}

const MARKS = [["***", "strong"], ["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

/**
 * Return the nodes of a text with emphasis, code and links. The work is linear: a mark without an end is looked for once.
 *
 * @param {string} text
 * @param {number} [depth]
 * @returns {Node[]}
 */
export function inline(text, depth = 0) {
  /** @type {Node[]} */ const nodes = [];
  const missing = new Set();
  let plain = "";
  let at = 0;
  const add = (/** @type {Node} */ node, /** @type {number} */ end) => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
    nodes.push(node);
    at = end;
  };
  while (at < text.length) {
    const found = span(text, at, depth, missing);
    if (found) {
      add(found.node, found.end);
    } else if (text[at] === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else {
      const run = /^(\*+|_+|~+|`+)/.exec(text.slice(at, at + 40))?.[0] ?? text[at];
      plain += run;
      at += run.length;
    }
  }
  if (plain) nodes.push(document.createTextNode(plain));
  return nodes;
}

/** @param {string} text @param {number} at @param {number} depth @param {Set<string>} missing @returns {{ node: Node, end: number } | null} */
function span(text, at, depth, missing) {
  switch (text[at]) {
    case "`":
      return code(text, at, missing);
    case "*":
    case "_":
    case "~":
      return depth < DEEPEST ? emphasis(text, at, depth, missing) : null;
    case "!":
      return text[at + 1] === "[" && depth < DEEPEST ? link(text, at + 1, missing) : null;
    case "[":
      return depth < DEEPEST ? link(text, at, missing) : null;
    case "h":
      return bare(text, at);
    default:
      return null;
  }
}

/** Find a mark, and remember where there is none further on. @param {string} text @param {string} mark @param {number} from @param {Set<string>} missing */
function find(text, mark, from, missing) {
  if (missing.has(mark)) return -1;
  const end = text.indexOf(mark, from);
  if (end < 0) missing.add(mark);
  return end;
}

/** @param {string} text @param {number} at @param {Set<string>} missing */
function code(text, at, missing) {
  const mark = /^`+/.exec(text.slice(at, at + 40))?.[0] ?? "`";
  const end = find(text, mark, at + mark.length, missing);
  if (end < 0) return null;
  const inside = text.slice(at + mark.length, end).replace(/\n/g, " ");
  return { node: el("code", {}, inside.trim() ? inside.replace(/^ (.*) $/, "$1") : inside), end: end + mark.length };
}

/** @param {string} text @param {number} at @param {number} depth @param {Set<string>} missing */
function emphasis(text, at, depth, missing) {
  for (const [mark, tag] of MARKS) {
    if (!text.startsWith(mark, at)) continue;
    const start = at + mark.length;
    if (/\s/.test(text[start] ?? " ") || (mark[0] === "_" && /\w/.test(text[at - 1] ?? ""))) return null;
    const end = closing(text, mark, start + 1, missing);
    if (end < 0) continue;
    if (/\s/.test(text[end - 1]) || (mark[0] === "_" && /\w/.test(text[end + mark.length] ?? ""))) return null;
    const inside = inline(text.slice(start, end), depth + 1);
    const node = mark === "***" ? el("em", {}, el("strong", {}, ...inside)) : el(tag, {}, ...inside);
    return { node, end: end + mark.length };
  }
  return null;
}

/**
 * Find the end of an emphasis: the last marks of a run that is long enough, but of two marks not the second for one.
 *
 * @param {string} text
 * @param {string} mark
 * @param {number} from
 * @param {Set<string>} missing
 */
function closing(text, mark, from, missing) {
  let at = find(text, mark, from, missing);
  while (at >= 0) {
    let length = mark.length;
    while (text[at + length] === mark[0]) length++;
    if (mark.length > 1 || length !== 2) return at + length - mark.length;
    at = find(text, mark, at + length, missing);
  }
  return at;
}

/** @param {string} text @param {number} at @param {Set<string>} missing */
function link(text, at, missing) {
  if (missing.has("](")) return null;
  const length = text.slice(at, at + LONGEST_LABEL).indexOf("](");
  if (length < 0) {
    find(text, "](", at, missing);
    return null;
  }
  const middle = at + length;
  const size = text.slice(middle, middle + LONGEST_ADDRESS).indexOf(")");
  if (size < 0) return null;
  const end = middle + size;
  const label = text.slice(at + 1, middle);
  const address = text.slice(middle + 2, end).trim().split(/\s/)[0];
  const href = checked(address);
  if (!href || label.includes("\n\n")) return null;
  return { node: anchor(href, inline(label || address, DEEPEST)), end: end + 1 };
}

/** An address that stands for itself. @param {string} text @param {number} at */
function bare(text, at) {
  if (/\w/.test(text[at - 1] ?? "")) return null;
  const address = /^https?:\/\/[^\s<>"'`*\])]{1,1000}/.exec(text.slice(at, at + 1010))?.[0].replace(/[.,;:!?]+$/, "");
  const href = address && checked(address);
  return href ? { node: anchor(href, [document.createTextNode(address)]), end: at + address.length } : null;
}

/** The address, if it is a whole one of a safe kind; else empty. @param {string} address */
export function checked(address) {
  if (!URL.canParse(address)) return "";
  const url = new URL(address);
  return SAFE.has(url.protocol) ? url.href : "";
}

/** @param {string} href @param {Node[]} label */
function anchor(href, label) {
  return el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...label);
}
