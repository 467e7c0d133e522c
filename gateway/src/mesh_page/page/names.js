// Names, each with those who hold it.

import { $, el, list, part, text } from "./dom.js";
import { number, plural, short, span } from "./format.js";

/** Names that are listed; of more only the number. */
const MOST = 100;

export function showNames(picture) {
  const wanted = $("find-name").value.trim().toLowerCase();
  const names = byName(picture).filter(({ name }) => name.toLowerCase().includes(wanted));
  const shown = names.slice(0, MOST);
  const beyond = names.length - shown.length;
  $("names-table").hidden = shown.length === 0;
  text($("names-note"), beyond > 0 ? `and ${plural(beyond, "more", "more")}` : shown.length ? "" : wanted ? "No name with this text." : "Nothing is published.");
  list($("names"), shown, ({ key }) => key, makeName, (row, { name, scope, holders }) => {
    text(part(row, "name"), name);
    const exclusive = holders.some(({ record }) => record.exclusive);
    text(part(row, "scope"), exclusive ? `${scope}, exclusive` : scope);
    text(part(row, "count"), number(holders.filter(({ record }) => !record.waiting).length));
    const some = holders.slice(0, 6).map(({ record, node }) => `${node.hostOf.label}/${short(node.node)}${record.waiting ? " (waits)" : ""}`);
    text(part(row, "holders"), some.join(", ") + (holders.length > 6 ? ` and ${number(holders.length - 6)} more` : ""));
    const latest = Math.max(...holders.map(({ record }) => record.since));
    text(part(row, "since"), span(picture.view.at - latest));
  });
}

/** All names at each scope, with their holders, in the order of the alphabet. */
function byName({ nodes }) {
  const names = new Map();
  for (const node of nodes) {
    for (const record of node.published) {
      const key = `${record.name} ${record.scope}`;
      if (!names.has(key)) names.set(key, { key, name: record.name, scope: record.scope, holders: [] });
      names.get(key).holders.push({ record, node });
    }
  }
  return [...names.values()].sort((a, b) => a.key.localeCompare(b.key));
}

function makeName() {
  return el("tr", {},
    el("td", { class: "named", "data-part": "name" }), el("td", { class: "quiet", "data-part": "scope" }),
    el("td", { class: "n", "data-part": "count" }), el("td", { class: "held", "data-part": "holders" }),
    el("td", { class: "n wide", "data-part": "since" }));
}
