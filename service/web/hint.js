// @ts-check
/** The hint: what to try. Each step is ticked off once it has happened, in whichever way. */

import { $, announce, write } from "/web/dom.js";

/** @typedef {"ask" | "unplug" | "replug" | "second"} Step */

const NEXT = {
  ask: "It streams. Now pull the plug, while it does.",
  unplug: "The view stands still, and the log goes on. Now plug it back in.",
  replug: "Nothing is missing, and nothing came twice. Now open a second view.",
  second: "Two readers of one log, and one call to the model.",
};

const AGAIN = "The answer is complete. Ask again, and pull the plug while it streams.";

/** @param {Step} step */
const itemOf = (step) => $(`#hint [data-step="${step}"]`);

/** Nothing streams any more: whoever has not pulled the plug yet has to ask again. */
export function still() {
  if (itemOf("ask").dataset.done && !itemOf("unplug").dataset.done) say(AGAIN);
}

/** Tick a step off. @param {Step} step */
export function done(step) {
  const item = itemOf(step);
  if (item.dataset.done) {
    if (step === "ask" && $("#next").textContent === AGAIN) say(NEXT.ask);
    return;
  }
  item.dataset.done = "true";
  $(".mark", item).textContent = "done: ";
  const left = [...document.querySelectorAll("#hint li:not([data-done])")];
  const said = left.length ? NEXT[step] : "That is all there is to it: one log a request, and any number of readers that come and go.";
  say(said);
}

/** @param {string} text */
function say(text) {
  if ($("#next").textContent === text) return;
  write($("#next"), text);
  announce(text);
}
