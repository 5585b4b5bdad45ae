// @ts-check
/** The playground at `/`: ask, cut the connection, come back, and watch the log behind it. */

import { Tidegate } from "/client.js";
import { goTo } from "/web/dom.js";
import { AskForm } from "/web/form.js";
import { done, still } from "/web/hint.js";
import { Neighbours } from "/web/neighbours.js";
import { send } from "/web/orders.js";
import { RecentList } from "/web/recent.js";
import { Section } from "/web/section.js";

const MOST_REQUESTS = 12; // on the page; the oldest go

/** @typedef {import("/web/form.js").Order} Order */

/** @type {Section[]} the newest first. */
let sections = [];
const form = new AskForm(ask);
const recent = new RecentList(follow);

const neighbours = new Neighbours(() => sections);

/** @type {import("/web/section.js").Page} */
const page = {
  connect: () => new Tidegate(location.origin, { token: () => form.key }),
  remember: (id, title) => recent.add(id, title),
  ask,
  follow,
  wantKey: () => form.wantKey(form.keyProblem),
  done,
  quiet,
  removed: (section) => {
    sections = sections.filter((one) => one !== section);
    quiet();
    neighbours.tell(section);
  },
  tell: (section) => neighbours.tell(section),
  meet: (id) => neighbours.ask(id),
};

const linked = new URLSearchParams(location.search).get("request");
if (linked) follow(linked, "A request from a link");
form.listModels();

/** Submit an order; what fails is said in its view. @param {Order} order */
async function ask(order) {
  const section = add(new Section(page, order.title, order));
  const view = section.open();
  goTo(view.element);
  try {
    const request = await send(view.client, order, form.key);
    section.bind(request);
    view.attach(request);
  } catch (error) {
    view.fail(error);
  }
}

/** Follow a request by its id, from its beginning. @param {string} id @param {string} title */
function follow(id, title) {
  const known = sections.find((section) => section.facts.id === id);
  if (known) return goTo(known.views[0].element);
  const section = add(new Section(page, title, null));
  const view = section.open();
  const request = view.client.follow(id);
  section.bind(request);
  view.attach(request);
  goTo(view.element);
}

/** Look whether an answer still streams. */
function quiet() {
  if (!sections.some((section) => section.streams)) still();
}

/** @param {Section} section */
function add(section) {
  sections = [section, ...sections];
  for (const old of sections.slice(MOST_REQUESTS)) old.remove();
  return section;
}
