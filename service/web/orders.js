// @ts-check
/** Sends an order: as a native request, or, where it has an effort of reasoning, as an OpenAI response in the background. */

import { TidegateError } from "/client.js";

/** @typedef {import("/web/form.js").Order} Order */
/** @typedef {import("/client.js").Tidegate} Tidegate */
/** @typedef {import("/client.js").Following} Following */

const RESPONSE = "resp_"; // a response's id is this and the request's id

/**
 * @param {Tidegate} client
 * @param {Order} order
 * @param {string} key
 * @returns {Promise<Following>}
 */
export async function send(client, order, key) {
  return order.effort ? sendResponse(client, order, key) : client.submit(order.body);
}

/** @param {Tidegate} client @param {Order} order @param {string} key */
async function sendResponse(client, { body, effort }, key) {
  const headers = new Headers({ "Content-Type": "application/json", "x-tidegate-dedupe": body.options.dedupe ? "on" : "off" });
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const response = {
    model: body.model,
    input: body.messages,
    background: true,
    max_output_tokens: body.options.maxTokens,
    reasoning: { effort, summary: "auto" },
  };
  const answer = await fetch("/v1/responses", { method: "POST", headers, body: JSON.stringify(response) }).catch(() => null);
  if (!answer) throw new TidegateError({ code: "unreachable", message: "the service does not answer", remedy: "See whether it runs, then try again." });
  const made = await answer.json();
  if (!answer.ok) throw new TidegateError({ ...made.error, code: made.error?.code || made.error?.type });
  const following = client.follow(made.id.slice(RESPONSE.length));
  following.traceId = answer.headers.get("x-trace-id") ?? "";
  following.source = answer.headers.get("x-tidegate-source") ?? "";
  return following;
}

/**
 * The order that goes on from an answer with tool calls: the conversation so far, the answer and the results.
 *
 * @param {Order} order
 * @param {Following} request which has completed.
 * @param {string[]} results in the order of the calls.
 * @returns {Order}
 */
export function withResults(order, request, results) {
  const answer = { role: "assistant", content: request.result.parts };
  const told = request.toolCalls.map(({ id }, index) => ({ role: "tool", toolCallId: id, content: results[index] }));
  const { toolChoice: _required, ...body } = order.body;
  const messages = [...body.messages, answer, ...told];
  return { ...order, title: `${order.title} (with the result)`, body: { ...body, messages } };
}
