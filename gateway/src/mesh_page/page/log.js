// What has come and gone, latest first.

import { $, el, list, text, tone } from "./dom.js";
import { clock, short } from "./format.js";

/** What an event is called, how worrying it is, whether it is about a name. */
const EVENTS = {
  published: ["Available", "", true],
  withdrawn: ["Dropped", "bad", true],
  node_up: ["node up", "calm", false],
  node_gone: ["node gone", "warn", false],
  host_up: ["host up", "", false],
  host_lost: ["host lost", "bad", false],
  host_left: ["host left", "calm", false],
  missed: ["may have missed some", "calm", false],
};
const MOST = 500;
let journal = [];

/** Another feed begins, which tells everything from its beginning. */
export function begin() {
  journal = [];
  showLog();
}

export function note(entries) {
  const last = journal[0]?.number ?? 0;
  for (const entry of entries) if (entry.number > last) journal.unshift(entry);
  journal.length = Math.min(journal.length, MOST);
  showLog();
}

export function showLog() {
  const wanted = $("filter").value.trim().toLowerCase();
  const namesOnly = $("names-only").checked;
  const shown = journal.filter((entry) => {
    const [word, , named] = EVENTS[entry.event] ?? [entry.event, "", false];
    if (namesOnly && !named) return false;
    if (!wanted) return true;
    return [word, entry.host_name, entry.name, entry.reason, entry.node, entry.host].some((field) => field?.toLowerCase().includes(wanted));
  }).slice(0, 200);
  $("log-empty").hidden = shown.length > 0;
  text($("log-empty"), journal.length ? "Nothing with this text." : "Nothing since somebody began to look.");
  list($("log"), shown, (entry) => String(entry.number), (entry) => {
    const [word, how] = EVENTS[entry.event] ?? [entry.event, "calm"];
    const state = el("span", { class: "state" }, word);
    const withdrawn = entry.event === "withdrawn" && entry.reason === "withdrawn";
    tone(state, withdrawn ? "calm" : how);
    const host = entry.host_name || short(entry.host);
    const where = [(entry.name || entry.node) && `on ${host}`, entry.name && entry.node && `node ${short(entry.node)}`, entry.reason].filter(Boolean).join(" · ");
    return el("li", { class: "fresh", "data-event": entry.event },
      el("time", { datetime: new Date(entry.at).toISOString() }, clock(entry.at)),
      el("span", { class: "what" }, state, entry.name ?? (entry.node ? `node ${short(entry.node)}` : host)), el("span", { class: "where" }, where));
  }, () => {});
}
