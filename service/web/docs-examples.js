// @ts-check
/** Examples of calls, to copy: one function for each language. */

/**
 * @typedef {object} Call
 * @property {string} url
 * @property {Record<string, unknown>} [body]
 * @property {boolean} streams whether the answer is a stream of events
 * @property {boolean} json whether the answer is JSON
 * @property {boolean} key whether a key is needed
 * @property {boolean} socket whether it opens a WebSocket
 */

const KEY = "TIDEGATE_API_KEY";
const PING = '{"type": "ping"}';

/** @type {Record<string, (operation: { method: string }, call: Call) => string>} */
export const EXAMPLES = { curl, Python: python, JavaScript: javaScript };

/** @param {{ method: string }} operation @param {Call} call */
function curl({ method }, call) {
  const lines = [`curl -sS${call.streams ? "N" : ""}${method === "GET" ? "" : ` -X ${method}`} ${shell(call.url)}`];
  if (call.key) lines.push(`-H "Authorization: Bearer $${KEY}"`);
  if (call.socket) {
    lines[0] = `curl -sSi --http1.1 --max-time 2 ${shell(call.url)}`;
    lines.push("-H 'Connection: Upgrade'", "-H 'Upgrade: websocket'");
    lines.push("-H 'Sec-WebSocket-Version: 13'", "-H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='");
  }
  if (call.body) lines.push("-H 'Content-Type: application/json'", `-d ${shell(JSON.stringify(call.body, null, 2))}`);
  return lines.join(" \\\n  ");
}

/** @param {{ method: string }} operation @param {Call} call */
function python({ method }, call) {
  const os = call.key ? "import os\n" : "";
  const key = `{"Authorization": f"Bearer {os.environ['${KEY}']}"}`;
  if (call.socket) {
    const headers = call.key ? `, additional_headers=${key}` : "";
    return `${os}from websockets.sync.client import connect\n\n`
      + `with connect(${literal(call.url.replace("http", "ws"))}${headers}) as socket:\n`
      + `    socket.send('${PING}')\n    print(socket.recv())`;
  }
  const given = [literal(call.url)];
  if (call.key) given.push(`headers=${key}`);
  if (call.body) given.push(`json=${literal(call.body, 1)}`);
  if (call.streams) {
    given.push("stream=True", "timeout=(10, 60)");
    return `${os}import requests\n\nwith requests.get(\n    ${given.join(",\n    ")},\n) as response:\n`
      + "    response.raise_for_status()\n    for line in response.iter_lines(decode_unicode=True):\n        print(line)";
  }
  given.push("timeout=60");
  return `${os}import requests\n\nresponse = requests.${method.toLowerCase()}(\n    ${given.join(",\n    ")},\n)\n`
    + `response.raise_for_status()\nprint(response.${call.json ? "json()" : "text"})`;
}

/** @param {{ method: string }} operation @param {Call} call */
function javaScript({ method }, call) {
  if (call.socket) {
    const first = call.key ? `{ type: "authenticate", token: process.env.${KEY} }` : '{ type: "ping" }';
    return `const socket = new WebSocket(${JSON.stringify(call.url.replace("http", "ws"))});\n`
      + `socket.onopen = () => socket.send(JSON.stringify(${first}));\n`
      + "socket.onmessage = ({ data }) => console.log(data);";
  }
  const options = [];
  if (method !== "GET") options.push(`method: "${method}"`);
  const headers = [];
  if (call.key) headers.push(`Authorization: \`Bearer \${process.env.${KEY}}\``);
  if (call.body) headers.push('"Content-Type": "application/json"');
  if (headers.length) options.push(`headers: { ${headers.join(", ")} }`);
  if (call.body) options.push(`body: JSON.stringify(${JSON.stringify(call.body, null, 2).replace(/\n/g, "\n  ")})`);
  const given = options.length ? `, {\n  ${options.join(",\n  ")},\n}` : "";
  const rest = call.streams
    ? "const text = new TextDecoder();\nfor await (const chunk of response.body) console.log(text.decode(chunk, { stream: true }));"
    : `console.log(await response.${call.json ? "json()" : "text()"});`;
  return `const response = await fetch(${JSON.stringify(call.url)}${given});\n`
    + `if (!response.ok) throw new Error(await response.text());\n${rest}`;
}

/** @param {string} text */
function shell(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** JSON as Python writes it. @param {unknown} value @param {number} [depth] @returns {string} */
function literal(value, depth = 0) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = "    ".repeat(depth + 1);
  const list = Array.isArray(value);
  const items = list ? value.map((one) => literal(one, depth + 1))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, depth + 1)}`);
  const [begin, end] = list ? ["[", "]"] : ["{", "}"];
  const short = `${begin}${items.join(", ")}${end}`;
  if (!short.includes("\n") && short.length + inner.length < 70) return short;
  return `${begin}\n${items.map((one) => `${inner}${one},\n`).join("")}${"    ".repeat(depth)}${end}`;
}
