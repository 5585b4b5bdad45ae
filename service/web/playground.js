// @ts-check
/** The playground at `/`: each view has its own client, so that each can be disconnected by itself. */

import { Tidegate, TidegateError } from "/client.js";

/** @param {string} selector @param {ParentNode} [root] @returns {any} */
const $ = (selector, root = document) => root.querySelector(selector);

const KEY = "tidegate-key";
const WORDS = /** @type {Record<string, string>} */ ({
  pending: "waiting for the model", running: "streaming", cut: "unplugged", connecting: "connecting",
  waiting: "connection lost, coming back", completed: "complete", failed: "failed", cancelled: "cancelled",
});

$("#key").value = sessionStorage.getItem(KEY) ?? "";
$("#key").addEventListener("change", () => {
  sessionStorage.setItem(KEY, $("#key").value);
  listModels();
});
$("#prompt").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("#ask").requestSubmit();
});
$("#ask").addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const client = connect();
  const body = {
    model: $("#model").value,
    messages: [{ role: "user", content: $("#prompt").value }],
    options: { maxTokens: Number($("#tokens").value) },
  };
  try {
    show(client, await client.submit(body), $("#prompt").value);
    say("");
  } catch (error) {
    client.close();
    complain(error);
  }
});

const linked = new URLSearchParams(location.search).get("request");
if (linked) {
  const client = connect();
  show(client, client.follow(linked), "Followed from a link");
}
listModels();

function connect() {
  return new Tidegate(location.origin, { token: $("#key").value });
}

async function listModels() {
  const headers = $("#key").value ? { Authorization: `Bearer ${$("#key").value}` } : undefined;
  const response = await fetch("/v1/models", { headers }).catch(() => null);
  if (!response?.ok) {
    $("#key-row").open = response?.status === 401;
    return;
  }
  const { data } = await response.json();
  $("#model").replaceChildren(...data.map((/** @type {{ id: string }} */ model) => new Option(model.id, model.id)));
}

/**
 * Show a request in a view of its own.
 *
 * @param {Tidegate} client
 * @param {import("/client.js").Following} request
 * @param {string} title
 */
function show(client, request, title) {
  const view = $("#view").content.cloneNode(true).firstElementChild;
  const address = `/?request=${encodeURIComponent(request.id)}`;
  let unplugged = false;
  $("h2", view).textContent = title;
  $(".id", view).textContent = request.id;
  $(".id", view).href = address;
  $("#views").prepend(view);
  $("#hint").hidden = true;

  function draw() {
    const connection = client.status === "open" || request.ended ? request.state : client.status;
    const state = unplugged && !request.ended ? "cut" : connection;
    const text = $(".text", view);
    const followed = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    view.dataset.state = state;
    $(".status", view).textContent = WORDS[state] ?? state;
    if (text.textContent !== request.text) text.textContent = request.text;
    if (followed) text.scrollTop = text.scrollHeight;
    $(".position", view).textContent = request.position ? `${request.position.epoch}:${request.position.offset}` : "";
    $(".source", view).textContent = request.source;
    $(".tokens", view).textContent = request.usage ? `${request.usage.inputTokens} in, ${request.usage.outputTokens} out` : "";
    $(".trace", view).textContent = request.traceId;
    $(".plug", view).textContent = unplugged ? "Plug it back in" : "Pull the plug";
    $(".plug", view).ariaPressed = String(unplugged);
    $(".plug", view).disabled = $(".cancel", view).disabled = request.ended;
  }

  request.addEventListener("change", draw);
  client.addEventListener("status", draw);
  request.done.then(() => settle(), (/** @type {unknown} */ error) => {
    settle();
    if (!(error instanceof TidegateError) || error.code !== "cancelled") complain(error);
  });

  $(".plug", view).addEventListener("click", () => {
    unplugged = !unplugged;
    if (unplugged) client.unplug();
    else client.plug();
    draw();
  });
  $(".cancel", view).addEventListener("click", () => request.cancel().catch(complain));
  $(".second", view).addEventListener("click", () => {
    const other = connect();
    show(other, other.follow(request.id), title);
  });
  $(".trace", view).addEventListener("click", () => navigator.clipboard?.writeText(request.traceId));
  $(".leave", view).addEventListener("click", () => {
    request.leave();
    client.close();
    view.remove();
    $("#hint").hidden = $("#views").childElementCount > 0;
  });
  draw();

  /** Get the fields that a view does not know, if it has not submitted the request itself, from its state. */
  async function settle() {
    draw();
    const state = await client.state(request.id).catch(() => null);
    request.traceId ||= state?.traceId ?? "";
    request.source ||= state?.source ?? "";
    request.usage ??= state?.usage;
    draw();
  }
}

/** @param {unknown} error */
function complain(error) {
  const known = error instanceof TidegateError ? error : new TidegateError({ message: String(error) });
  if (known.code === "unauthenticated") $("#key-row").open = true;
  say([known.message, known.remedy].filter(Boolean).join(" — "));
}

/** @param {string} text */
function say(text) {
  $("#notice").textContent = text;
  $("#notice").hidden = !text;
}
