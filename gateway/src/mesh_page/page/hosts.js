// Hosts, their nodes, names and actors.

import { $, el, list, part, text, tone } from "./dom.js";
import { number, plural, rate, short, span } from "./format.js";
import { STATES } from "./map.js";

export function showHosts(picture) {
  const { view } = picture;
  const few = picture.nodes.length <= 24;
  list($("hosts"), view.hosts, (host) => host.host, () => makeHost(few), (card, host) => {
    const [word, how] = STATES[host.state] ?? [host.state, "warn"];
    card.dataset.host = host.host;
    card.classList.toggle("missing", host.state === "lost");
    text(part(card, "name"), host.label);
    text(part(card, "state"), word);
    tone(part(card, "state"), how);
    const since = host.since ? `for ${span(view.at - host.since)}` : "";
    text(part(card, "facts"), [since, host.addresses.map((address) => address.replace(/:\d+$/, "")).filter((address, index, all) => all.indexOf(address) === index).slice(0, 3).join(", ")].filter(Boolean).join(" · "));
    text(part(card, "trouble"), host.trouble ?? "");
    list(part(card, "nodes"), host.nodes, (node) => node.node, makeNodeCard, (item, node) => showNode(item, node, view));
    const count = (of) => host.nodes.reduce((sum, node) => sum + of(node), 0);
    const messages = count((node) => node.messages);
    text(part(card, "summary"), [plural(host.nodes.length, "node"), plural(count((node) => node.published.length), "name"), plural(count((node) => node.story.actor_count), "actor"), messages >= 0.5 && `${rate(messages)} messages/s`].filter(Boolean).join(" · "));
    part(card, "inside").hidden = host.nodes.length === 0;
    text(part(card, "omitted"), host.omitted ? `and ${number(host.omitted)} more that are not listed` : "");
  });
}

function makeHost(open) {
  return el("article", { class: "host" },
    el("div", { class: "host-head" }, el("h3", { "data-part": "name" }), el("span", { class: "state", "data-part": "state" }), el("span", { class: "quiet", "data-part": "facts" })),
    el("p", { class: "trouble", "data-part": "trouble" }),
    el("details", { open: open ? "" : null, "data-part": "inside" }, el("summary", { "data-part": "summary" }), el("div", { "data-part": "nodes" })),
    el("p", { class: "quiet", "data-part": "omitted" }));
}

function makeNodeCard(node) {
  const head = (label, right) => el("th", { scope: "col", class: right ? "n" : null }, label);
  return el("div", { class: "node", "data-node-card": node.node },
    el("div", { class: "node-head" }, el("strong", { "data-part": "title" }), el("span", { "data-part": "tags", class: "chips" })),
    el("div", { class: "node-facts", "data-part": "facts" }),
    el("div", { class: "chips", "data-part": "names" }),
    el("p", { class: "trouble", "data-part": "troubles" }),
    el("details", { "data-part": "actors-of" },
      el("summary", { "data-part": "actor-count" }),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Actors" },
        el("table", {},
          el("thead", {}, el("tr", {}, head("Actor"), head("Mailbox", true), head("Handled/s", true), head("Handled", true))),
          el("tbody", { "data-part": "actors" })))));
}

function showNode(item, node, view) {
  const { about, story } = node;
  text(part(item, "title"), node.title);
  const tags = [
    node.directory && "directory of this host",
    node.group && `group ${typeof node.group === "string" ? node.group : node.group.name ?? ""}`.trim(),
    !node.answered && !node.unlisted && "did not answer",
  ].filter(Boolean);
  list(part(item, "tags"), tags, (tag) => tag, () => el("span", { class: "tag" }), (chip, tag) => text(chip, tag));
  const facts = [
    about.program && node.title !== about.program && !node.title.startsWith(about.program) && about.program,
    about.pid && `pid ${about.pid}`,
    about.user && `as ${about.user}`,
    `node ${short(node.node)}`,
    about.started && `up ${span(view.at - about.started)}`,
    node.messages >= 0.5 && `${rate(node.messages)} messages/s`,
    story.dead_letters > 0 && plural(story.dead_letters, "dead letter"),
  ].filter(Boolean);
  text(part(item, "facts"), facts.join(" · "));
  const names = [
    ...node.published.map((record) => ({ key: `n${record.serial}`, name: record.name, beside: [record.scope, record.exclusive && "exclusive", record.waiting && "waits"].filter(Boolean).join(", "), asks: false })),
    ...node.subscribed.map((asked) => ({ key: `s${asked.id}`, name: asked.pattern, beside: `asks, ${asked.scope}`, asks: true })),
  ].slice(0, 40);
  list(part(item, "names"), names, (name) => name.key, () => el("span", { class: "chip" }, el("span"), " ", el("small")), (chip, name) => {
    chip.classList.toggle("asks", name.asks);
    text(chip.firstChild, name.name);
    text(chip.lastChild, name.beside);
  });
  text(part(item, "troubles"), node.troubles.map((trouble) => `${trouble.about}: ${trouble.why}`).slice(0, 3).join("; "));
  part(item, "actors-of").hidden = story.actors.length === 0;
  const handled = story.actors.reduce((sum, actor) => sum + actor.rate, 0);
  const waiting = story.actors.reduce((sum, actor) => sum + actor.waiting, 0);
  text(part(item, "actor-count"), [plural(story.actor_count, "actor"), `${rate(handled)} messages/s`, waiting > 0 && `${number(waiting)} in mailboxes`].filter(Boolean).join(" · "));
  const named = new Map(node.published.map((record) => [record.actor, record.name]));
  list(part(item, "actors"), story.actors.slice(0, 64), (actor) => String(actor.serial),
    () => el("tr", {}, el("td"), el("td", { class: "n" }), el("td", { class: "n" }), el("td", { class: "n" })),
    (row, actor) => {
      const cells = row.children;
      const name = named.get(actor.serial);
      text(cells[0], `${actor.kind}.${actor.serial}${name ? ` · ${name}` : ""}`);
      text(cells[1], number(actor.waiting));
      text(cells[2], rate(actor.rate));
      text(cells[3], number(actor.taken));
    });
}
