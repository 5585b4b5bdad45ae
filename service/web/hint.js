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

/** Tick a step off. @param {Step} step */
export function done(step) {
  const item = $(`#hint [data-step="${step}"]`);
  if (item.dataset.done) return;
  item.dataset.done = "true";
  $(".mark", item).textContent = "done: ";
  const left = [...document.querySelectorAll("#hint li:not([data-done])")];
  const said = left.length ? NEXT[step] : "That is all there is to it: one log a request, and any number of readers that come and go.";
  write($("#next"), said);
  announce(said);
}
