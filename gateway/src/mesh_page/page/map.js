// The drawing of hosts, nodes and links, and the links as a table.

import { $, el, list, part, svg, text } from "./dom.js";
import { bytes, number, plural, rate, short } from "./format.js";
import { BOX, place } from "./place.js";

/** What a state is called, and how worrying it is. */
export const STATES = {
  here: ["this host", ""],
  up: ["up", ""],
  silent: ["does not answer", "warn"],
  link_lost: ["link lost", "warn"],
  lost: ["host lost", "bad"],
  left: ["left", "calm"],
  never_reached: ["never reached", "warn"],
};

let drawn = null;

export function showMap(picture) {
  const drawing = $("drawing");
  const available = drawing.clientWidth - 12;
  if (available <= 0) return;
  const plan = place(picture.view, available);
  if (!drawn) {
    drawn = { frame: svg("svg", { role: "img" }), far: svg("g"), boxes: svg("g"), near: svg("g"), plates: svg("g") };
    drawn.title = svg("title");
    // What leads far passes behind the hosts on its way.
    drawn.frame.append(drawn.title, drawn.far, drawn.boxes, drawn.near, drawn.plates);
    drawing.append(drawn.frame, el("p", { class: "quiet", "data-part": "beyond" }), legend());
  }
  const inset = 4;
  const total = Math.max(plan.width, 200);
  const shift = Math.max(0, (total - Math.max(...plan.boxes.map((box) => box.x + box.width))) / 2);
  for (const box of plan.boxes) box.x += shift;
  drawn.frame.setAttribute("viewBox", `${-inset} ${-inset} ${total + 2 * inset} ${plan.height + 2 * inset}`);
  const shown = picture.links.filter((link) => link.rate >= 0.5).length;
  const beyond = picture.view.hosts.length - plan.boxes.length;
  text(part(drawing, "beyond"), beyond > 0 ? `${plural(beyond, "more host")}, listed below` : "");
  text(drawn.title, `${plural(plan.boxes.length, "host")}, ${plural(picture.nodes.length, "node")}, ${plural(shown, "busy link")}; the same as text below`);

  const at = new Map();
  list(drawn.boxes, plan.boxes, (box) => box.host.host, makeBox, (group, box) => {
    group.setAttribute("transform", `translate(${box.x} ${box.y})`);
    const rect = part(group, "box");
    rect.setAttribute("height", box.height);
    rect.classList.toggle("missing", box.host.missing);
    const word = STATES[box.host.state]?.[0] ?? box.host.state;
    text(part(group, "state"), box.folded && box.host.nodes.length ? `${plural(box.host.nodes.length, "node")}, ${word}` : word);
    text(part(group, "name"), clip(box.host.label, Math.max(8, 29 - part(group, "state").textContent.length)));
    part(group, "state").classList.toggle("missing", box.host.missing);
    const more = part(group, "more");
    text(more, box.more > 0 ? `and ${plural(box.more, "more", "more")}` : box.shown.length || box.folded ? "" : "no node is known");
    more.setAttribute("y", BOX.head + box.shown.length * (BOX.row + BOX.gap) + 17);
    list(part(group, "nodes"), box.shown, (node) => node.node, makeNode, (row, node) => {
      const index = box.shown.indexOf(node);
      const y = BOX.head + index * (BOX.row + BOX.gap);
      row.setAttribute("transform", `translate(${BOX.pad} ${y})`);
      row.setAttribute("class", `node${node.node === picture.view.viewer ? " viewer" : ""}${node.directory ? " directory" : ""}`);
      const label = node.title;
      const aside = node.messages >= 0.5 ? `${rate(node.messages)}/s` : node.about.pid ? `pid ${node.about.pid}` : short(node.node);
      text(part(row, "label"), clip(label, aside.length > 7 ? 18 : 20));
      text(part(row, "rate"), aside);
      text(part(row, "full"), `${label}, node ${node.node}${node.about.pid ? `, process ${node.about.pid}` : ""}`);
      at.set(node.node, { key: node.node, x: box.x + BOX.pad, y: box.y + y + BOX.row / 2, width: box.width - 2 * BOX.pad, box });
    });
    // Those that are not drawn meet at the edge of their host.
    const edge = { key: box.host.host, x: box.x, y: box.y + box.height - BOX.head / 2 - 1, width: box.width, box };
    for (const node of box.host.nodes.slice(box.shown.length)) at.set(node.node, edge);
  });

  // Links between the same two places are one line.
  const between = new Map();
  for (const link of picture.links) {
    const [a, b] = [at.get(link.a.node), at.get(link.b.node)];
    if (!a || !b || a === b) continue;
    const key = `${a.key}-${b.key}`;
    const line = between.get(key) ?? between.get(`${b.key}-${a.key}`);
    if (line) {
      line.rate += link.rate;
      line.count += 1;
    } else {
      between.set(key, { key, a, b, rate: link.rate, count: 1, words: `${link.a.title} – ${link.b.title}` });
    }
  }
  const most = Math.max(20, ...[...between.values()].map((line) => line.rate));
  // The busy ones on top, and no more than can be told apart.
  const lines = [...between.values()].sort((x, y) => x.rate - y.rate).slice(-300);
  const curves = lines.map((line) => ({ ...line, ...curve(line.a, line.b, plan.narrow) }));
  const thin = curves.filter((line) => line.rate >= 0.5).length > 40 ? 0.55 : 1;
  const lay = (group, part) => list(group, part, (line) => line.key, () => svg("path", { class: "link" }, svg("title")), (path, line) => {
    path.setAttribute("d", line.d);
    const busy = line.rate >= 0.5;
    path.setAttribute("class", busy ? "link busy" : "link");
    // By the logarithm: a quiet link is to be seen beside one of a hundred thousand messages.
    const weight = busy ? thin * (1.4 + 4.6 * (Math.log1p(line.rate) / Math.log1p(most))) : 1;
    path.style.strokeWidth = `${weight.toFixed(2)}px`;
    text(path.firstChild, `${line.count > 1 ? plural(line.count, "link") : line.words}: ${rate(line.rate)} messages/s`);
  });
  lay(drawn.far, curves.filter((line) => line.far));
  lay(drawn.near, curves.filter((line) => !line.far));
  const busy = curves.filter((line) => line.far && line.rate >= 0.5);
  list(drawn.plates, busy.length > 16 ? [] : busy, (line) => line.key,
    () => svg("g", {}, svg("rect", { class: "rate-plate", height: 17, rx: 8.5, y: -8.5 }), svg("text", { class: "rate-text", y: 4 })),
    (plate, line) => {
      const { x, y } = line;
      const label = `${rate(line.rate)}/s`;
      const width = 14 + label.length * 6.6;
      plate.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
      plate.firstChild.setAttribute("width", width);
      plate.firstChild.setAttribute("x", -width / 2);
      text(plate.lastChild, label);
    });
}

function makeBox() {
  return svg("g", {},
    svg("rect", { class: "host-box", width: BOX.width, rx: 10, "data-part": "box" }),
    svg("text", { class: "host-name", x: BOX.pad + 2, y: 20, "data-part": "name" }),
    svg("text", { class: "host-state", x: BOX.width - BOX.pad - 2, y: 20, "data-part": "state" }),
    svg("g", { "data-part": "nodes" }),
    svg("text", { class: "node-more", x: BOX.pad + 4, "data-part": "more" }));
}

function makeNode(node) {
  const width = BOX.width - 2 * BOX.pad;
  return svg("g", { "data-node": node.node },
    svg("title", { "data-part": "full" }),
    svg("rect", { class: "node-box", width, height: BOX.row, rx: 6 }),
    svg("rect", { class: "node-mark", x: 8, y: BOX.row / 2 - 4.5, width: 9, height: 9, rx: 3 }),
    svg("text", { x: 24, y: BOX.row / 2 + 4, "data-part": "label" }),
    svg("text", { class: "node-rate", x: width - 8, y: BOX.row / 2 + 4, "data-part": "rate" }));
}

/** A line between two nodes: around the side within a host, across the gap between hosts. */
function curve(a, b, narrow) {
  const p = (n) => n.toFixed(1);
  if (a.box === b.box) {
    const side = a.x + a.width;
    const out = side + 9 + Math.min(26, Math.abs(a.y - b.y) / 5);
    return { d: `M${p(side)} ${p(a.y)}C${p(out)} ${p(a.y)} ${p(out)} ${p(b.y)} ${p(side)} ${p(b.y)}`, far: false };
  }
  let [left, right] = a.x <= b.x ? [a, b] : [b, a];
  const apart = right.x - (left.x + left.width);
  if (apart < 24 || narrow) {
    // One above the other: along the same side, or through the gap from edge to edge.
    const [top, bottom] = a.y <= b.y ? [a, b] : [b, a];
    if (Math.abs(a.x - b.x) < 8) {
      const side = top.x + top.width;
      const out = side + 14 + Math.min(34, Math.abs(a.y - b.y) / 8);
      return { d: `M${p(side)} ${p(top.y)}C${p(out)} ${p(top.y)} ${p(out)} ${p(bottom.y)} ${p(side)} ${p(bottom.y)}`, far: false };
    }
    const from = { x: top.x + top.width * (bottom.x < top.x ? 0.25 : 0.75), y: top.box.y + top.box.height };
    const to = { x: bottom.x + bottom.width / 2, y: bottom.box.y };
    const middle = (from.y + to.y) / 2;
    return { d: `M${p(from.x)} ${p(from.y)}C${p(from.x)} ${p(middle)} ${p(to.x)} ${p(middle)} ${p(to.x)} ${p(to.y)}`, far: false };
  }
  const [x0, x1] = [left.x + left.width, right.x];
  const bend = Math.max(30, (x1 - x0) * 0.45);
  // Near the end that lines part to.
  const t = 0.8;
  const cubic = (v0, v1, v2, v3) => (1 - t) ** 3 * v0 + 3 * (1 - t) ** 2 * t * v1 + 3 * (1 - t) * t * t * v2 + t ** 3 * v3;
  return {
    d: `M${p(x0)} ${p(left.y)}C${p(x0 + bend)} ${p(left.y)} ${p(x1 - bend)} ${p(right.y)} ${p(x1)} ${p(right.y)}`,
    far: true,
    x: cubic(x0, x0 + bend, x1 - bend, x1),
    y: cubic(left.y, left.y, right.y, right.y),
  };
}

function legend() {
  const item = (mark, words) => el("span", {}, el("b", { class: mark }), words);
  return el("div", { class: "legend" },
    item("", "node"), item("directory", "node with its host's directory"), item("line", "link, the wider the more messages/s"));
}

const clip = (words, most) => (words.length > most ? `${words.slice(0, most - 1)}…` : words);

export function showLinks(picture) {
  const lines = picture.links.slice(0, 100);
  text($("talk-count"), `(${number(picture.links.length)}${picture.links.length > 100 ? ", the busiest 100" : ""})`);
  list($("links"), lines, (link) => link.key,
    () => el("tr", {}, el("td"), el("td"), el("td"), el("td", { class: "n" }), el("td", { class: "n" })),
    (row, link) => {
      const cells = row.children;
      const name = (node) => `${node.title} · ${node.hostOf.label} · ${short(node.node)}`;
      text(cells[0], name(link.a));
      text(cells[1], name(link.b));
      text(cells[2], link.transport);
      text(cells[3], `${rate(link.ab)} → ${rate(link.ba)} ←`);
      text(cells[4], `${bytes(link.bytesAb)} → ${bytes(link.bytesBa)} ←`);
    });
}
