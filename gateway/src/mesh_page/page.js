// The mesh page. It reads events from /mesh/events and draws them. Everything that comes from the mesh
// is foreign text: it only ever becomes text nodes and attribute values, never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// ---------------------------------------------------------------- small helpers

/** Makes an element: attributes, then children (elements or text). */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text where it differs, so that a selection survives. */
function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

function tone(element, value) {
  if (value) element.dataset.tone = value;
  else delete element.dataset.tone;
}

/** Brings the children of an element in line with a list: each item has a key, a maker, an updater. */
function list(parent, items, key, make, update) {
  const wanted = new Set(items.map(key));
  const there = new Map();
  // Those that go, first: then those that stay need not be moved.
  for (const child of [...parent.children]) {
    if (wanted.has(child.dataset.key)) there.set(child.dataset.key, child);
    else child.remove();
  }
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = there.get(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
      there.set(name, child);
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update(child, item);
  }
}

/** Named parts of an element, found once. */
function part(element, name) {
  element.parts ??= {};
  return (element.parts[name] ??= element.querySelector(`[data-part="${name}"]`));
}

const short = (id) => id.slice(0, 4);
const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many ?? one + "s"}`;

function number(n) {
  if (!Number.isFinite(n)) return "–";
  if (n >= 1e9) return `${trim(n / 1e9)}G`;
  if (n >= 1e6) return `${trim(n / 1e6)}M`;
  if (n >= 1e4) return `${trim(n / 1e3)}k`;
  return n >= 1000 ? Math.round(n).toLocaleString("en") : trim(n);
}

function trim(n) {
  if (n >= 100 || Number.isInteger(n)) return String(Math.round(n));
  if (n >= 10) return n.toFixed(1).replace(/\.0$/, "");
  return n.toFixed(n > 0 && n < 0.095 ? 2 : 1).replace(/\.0$/, "");
}

/** A rate for people: nothing is nothing. */
const rate = (n) => (n < 0.005 ? "0" : number(n));

function bytes(n) {
  if (n < 1000) return `${Math.round(n)} B`;
  return n < 1e6 ? `${trim(n / 1e3)} kB` : `${trim(n / 1e6)} MB`;
}

function micros(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  return us < 1e6 ? `${trim(us / 1e3)} ms` : `${trim(us / 1e6)} s`;
}

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, "0")}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}m`;
  return `${Math.floor(s / 86400)}d${Math.floor((s % 86400) / 3600)}h`;
}

function clock(at) {
  const date = new Date(at);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// ---------------------------------------------------------------- rates

/** Rates of counters that only rise, each over its last few seconds, by the clock of who counts. */
class Rates {
  #seen = new Map();
  #round = 0;

  begin() {
    this.#round += 1;
  }

  /** Counts at a time in seconds; the rate per second. */
  of(key, seconds, count) {
    let track = this.#seen.get(key);
    const last = track?.samples.at(-1);
    if (!track || count < last.count || seconds < last.seconds) {
      track = { samples: [] };
      this.#seen.set(key, track);
    }
    track.round = this.#round;
    if (track.samples.at(-1)?.seconds !== seconds) track.samples.push({ seconds, count });
    while (track.samples.length > 2 && seconds - track.samples[1].seconds >= 2) track.samples.shift();
    const first = track.samples[0];
    const past = seconds - first.seconds;
    return past > 0.05 ? (count - first.count) / past : 0;
  }

  /** Forgets what was not counted in this round. */
  end() {
    for (const [key, track] of this.#seen) if (track.round !== this.#round) this.#seen.delete(key);
  }
}

/** The last minute of a few numbers, for small curves. */
class History {
  #lines = new Map();

  push(key, value, now) {
    let line = this.#lines.get(key);
    if (!line) this.#lines.set(key, (line = []));
    const last = line.at(-1);
    if (!last || now - last.at > 400) line.push({ at: now, value });
    while (line.length && now - line[0].at > 60_000) line.shift();
    return line;
  }
}

const rates = new Rates();
const history = new History();

// ---------------------------------------------------------------- the picture, worked out

const SILENT = { uptime_us: 0, actor_count: 0, actors: [], dead_letters: 0, pools: [] };

/** Everything that is drawn, from what came. */
function digest(view, now) {
  rates.begin();
  const nodes = new Map();
  const gone = new Set(view.gone);
  for (const host of view.hosts) {
    host.label = host.name || short(host.host);
    host.missing = !["here", "up"].includes(host.state);
    for (const node of host.nodes) {
      nodes.set(node.node, node);
      const story = { ...SILENT, ...view.stories[node.node] };
      Object.assign(node, { hostOf: host, story, uptime: story.uptime_us / 1e6, messages: 0, kinds: new Set() });
    }
  }
  const hosts = new Map(view.hosts.map((host) => [host.host, host]));
  const unnamed = (hostId, id) => {
    if (nodes.has(id)) return nodes.get(id);
    const host = hosts.get(hostId);
    if (!host || host.missing) return undefined;
    // A process that has nothing to say to the directory: its links and its pool tell of it.
    const node = {
      node: id, about: { program: "", pid: 0, started: 0, user: "" }, group: null, directory: false,
      answered: false, unlisted: true, addresses: [], published: [], subscribed: [], sessions: [],
      troubles: [], story: SILENT, hostOf: host, uptime: 0, messages: 0, kinds: new Set(),
    };
    nodes.set(id, node);
    host.nodes.push(node);
    return node;
  };
  const pools = [];
  for (const node of [...nodes.values()]) {
    for (const [index, told] of node.story.pools.entries()) {
      const pool = poolOf(told, node, index, gone);
      for (const worker of pool.workers) {
        worker.at = worker.node ? unnamed(worker.host, worker.node) : undefined;
        worker.hostLabel = worker.at?.hostOf.label ?? hosts.get(worker.host)?.label ?? "–";
        worker.at?.kinds.add(pool.actor);
      }
      pool.workers.sort((a, b) => a.hostLabel.localeCompare(b.hostLabel) || a.seat - b.seat);
      pools.push(pool);
    }
  }
  // A link is told by both ends: each says what it has sent.
  const links = new Map();
  for (const node of [...nodes.values()]) {
    for (const session of node.sessions) {
      const peer = unnamed(session.host, session.node);
      if (!peer) continue;
      const [a, b] = node.node < peer.node ? [node, peer] : [peer, node];
      const key = `${a.node}-${b.node}`;
      let link = links.get(key);
      if (!link) links.set(key, (link = { key, a, b, transport: session.transport, ab: 0, ba: 0, bytesAb: 0, bytesBa: 0 }));
      const of = (name) => rates.of(`${node.node}>${peer.node}:${session.since}:${name}`, node.uptime, session[name]);
      const [sent, received] = [of("messages_sent"), of("messages_received")];
      const [out, back] = [of("sent"), of("received")];
      const forth = node === a;
      link.ab = Math.max(link.ab, forth ? sent : received);
      link.ba = Math.max(link.ba, forth ? received : sent);
      link.bytesAb = Math.max(link.bytesAb, forth ? out : back);
      link.bytesBa = Math.max(link.bytesBa, forth ? back : out);
    }
  }
  for (const link of links.values()) {
    link.rate = link.ab + link.ba;
    for (const end of [link.a, link.b]) end.messages += link.rate;
  }
  for (const node of nodes.values()) {
    for (const actor of node.story.actors) {
      actor.rate = rates.of(`${node.node}/${actor.serial}`, node.uptime, actor.taken);
    }
    node.title = title(node, view);
  }
  rates.end();
  for (const host of view.hosts) {
    const rank = (node) => [node.node === view.viewer ? 0 : 1, node.unlisted ? 1 : 0, node.about.started];
    host.nodes.sort((a, b) => {
      const [x, y] = [rank(a), rank(b)];
      return x[0] - y[0] || x[1] - y[1] || x[2] - y[2] || a.node.localeCompare(b.node);
    });
  }
  for (const pool of pools) {
    pool.curve = history.push(`${pool.key}:rate`, pool.rate, now);
    pool.latencyCurve = history.push(`${pool.key}:latency`, pool.p99 ?? 0, now);
  }
  // Those with work first, and in one order as long as that is so.
  pools.sort((a, b) => (b.started > 0) - (a.started > 0) || a.at.about.started - b.at.about.started || a.key.localeCompare(b.key));
  const all = [...nodes.values()];
  const busiest = [...links.values()].sort((x, y) => y.rate - x.rate || x.key.localeCompare(y.key));
  return { view, pools, links: busiest, nodes: all, hosts };
}

/** A pool, with its rates. */
function poolOf(told, node, index, gone) {
  const { totals } = told;
  const pool = {
    key: `${node.node}:${told.name}:${index}`,
    name: told.name,
    actor: told.actor || told.name,
    at: node,
    waiting: told.waiting,
    inFlight: told.in_flight,
    expectedWait: told.expected_wait_ms,
    restarts: told.restarts,
    ejected: totals.ejected,
    omitted: told.omitted,
    started: totals.started,
    failed: totals.failed + totals.timed_out + totals.orphaned,
    rejected: [
      ["busy", totals.busy + totals.shed],
      ["overloaded", totals.overloaded + totals.displaced],
      ["no worker", totals.unavailable],
    ],
    ...quantiles(told.latency),
  };
  const of = (name, count) => rates.of(`${pool.key}:${name}`, node.uptime, count);
  pool.rate = of("started", pool.started);
  pool.failedRate = of("failed", pool.failed);
  pool.rejectedRate = of("rejected", pool.rejected.reduce((sum, [, count]) => sum + count, 0));
  // Who has gone may still be told of by a pool that has not heard of it.
  const there = told.workers.filter((worker) => !gone.has(worker.lives_in?.[1]));
  pool.workers = there.map((worker) => {
    const [host, home] = worker.lives_in ?? [undefined, undefined];
    const key = `${pool.key}:${worker.seat}:${home ?? ""}`;
    return { ...worker, ...quantiles(worker.latency), host, node: home, key, rate: rates.of(key, node.uptime, worker.started) };
  });
  pool.count = pool.workers.length + pool.omitted;
  const places = new Map();
  for (const { place } of pool.workers) places.set(place, (places.get(place) ?? 0) + 1);
  pool.kind = [...places].map(([place, count]) => plural(count, ...(PLACES[place] ?? [place]))).join(", ");
  const names = [...new Set(pool.workers.map((worker) => worker.name).filter(Boolean))];
  if (names.length === 1) pool.kind += ` of ${names[0]}`;
  return pool;
}

const PLACES = {
  task: ["task"], thread: ["thread"], process: ["process", "processes"], member: ["member"],
  added: ["added by hand", "added by hand"],
};

/** The latencies in microseconds; none where nothing was measured. */
function quantiles({ count, p50_ms: half, p99_ms: most }) {
  return count > 0 ? { p50: half * 1000, p99: most * 1000 } : { p50: null, p99: null };
}

/** What a node is called: what it works for, else its program. */
function title(node, view) {
  if (node.node === view.viewer) return "gateway (this page)";
  if (node.kinds?.size) return [...node.kinds].join(", ");
  const [pool] = node.story.pools;
  if (pool) return `pool of ${pool.actor || pool.name}`;
  if (node.published.length) return node.published[0].name;
  return node.about.program || "process";
}

// ---------------------------------------------------------------- numbers at the top

function showTotals({ view, pools, nodes }) {
  const missing = view.hosts.filter((host) => host.missing).length;
  const sum = (list, of) => list.reduce((total, item) => total + of(item), 0);
  const rejected = sum(pools, (pool) => pool.rejectedRate);
  const dead = sum(nodes, (node) => node.story.dead_letters);
  const slowest = pools.filter((pool) => pool.p99 !== null).map((pool) => pool.p99);
  const totals = [
    ["hosts", number(view.hosts.length - missing), missing ? `+ ${missing} missing` : "", missing ? "bad" : ""],
    ["nodes", number(nodes.length)],
    ["actors", number(sum(nodes, (node) => node.story.actor_count))],
    ["names", number(sum(nodes, (node) => node.published.length))],
    ["requests/s", rate(sum(pools, (pool) => pool.rate))],
    ["p99", slowest.length ? micros(Math.max(...slowest)) : "–"],
    ["in flight", number(sum(pools, (pool) => pool.inFlight)), ""],
    ["waiting", number(sum(pools, (pool) => pool.waiting)), "", sum(pools, (pool) => pool.waiting) > 0 ? "warn" : ""],
    ["rejected/s", rate(rejected), "", rejected >= 0.005 ? "bad" : ""],
    ["dead letters", number(dead), "", dead > 0 ? "warn" : "", dead === 0],
  ];
  list($("totals"), totals, ([name]) => name,
    () => el("div", {}, el("dt"), el("dd", {}, el("span"), " ", el("small"))),
    (item, [name, value, beside = "", how = "", quiet = false]) => {
      item.toggleAttribute("data-quiet", quiet);
      text(item.firstChild, name);
      text(item.lastChild.firstChild, value);
      text(item.lastChild.lastChild, beside);
      tone(item, how);
    });
}

// ---------------------------------------------------------------- the drawing

const BOX = { width: 236, pad: 10, head: 30, row: 26, gap: 5 };
/** Nodes shown of a host: all that there is room for, fewer where the drawing would be long, none at last. */
const ROWS = [10, 6, 4, 2, 0];
const MOST_HOSTS = 48;

/** Where hosts and nodes are drawn: this host first, the others in columns beside it, or below. */
function place(view, width) {
  const narrow = width < 640;
  const closest = narrow ? 20 : 70;
  const room = Math.max(1, Math.floor((narrow ? width + closest : width - BOX.width) / (BOX.width + closest)));
  const tall = narrow ? 1100 : 760;
  let plan;
  for (const rows of ROWS) {
    for (let columns = 1; columns <= room; columns += 1) {
      const across = narrow ? closest : Math.max(closest, Math.min(170, (width - BOX.width) / columns - BOX.width));
      plan = stack(view, { width, narrow, across, rows, columns });
      if (plan.height <= tall) return plan;
    }
  }
  return plan;
}

function stack(view, { width, narrow, across, rows, columns }) {
  const down = narrow ? 30 : rows ? 22 : 12;
  const boxes = view.hosts.slice(0, MOST_HOSTS).map((host) => {
    const shown = host.nodes.slice(0, rows);
    const more = rows ? host.nodes.length - shown.length + host.omitted : 0;
    const lines = rows ? Math.max(1, shown.length + (more > 0 ? 1 : 0)) : 0;
    const height = lines ? BOX.head + lines * (BOX.row + BOX.gap) + BOX.pad - BOX.gap + 2 : BOX.head + 2;
    return { host, shown, more, folded: !rows, width: BOX.width, height };
  });
  const [first, ...others] = boxes;
  const stacks = Array.from({ length: Math.min(columns, others.length) }, () => ({ boxes: [], height: 0 }));
  // One column after the other, so that the order is seen.
  const fair = others.reduce((sum, box) => sum + box.height + down, 0) / Math.max(1, stacks.length);
  let column = 0;
  for (const box of others) {
    if (stacks[column].height + box.height / 2 > fair && column + 1 < stacks.length) column += 1;
    stacks[column].boxes.push(box);
    stacks[column].height += box.height + down;
  }
  const tallest = Math.max(0, ...stacks.map((stack) => stack.height - down));
  const count = stacks.length;
  if (narrow) {
    const total = Math.max(1, count) * BOX.width + Math.max(0, count - 1) * across;
    first.x = (total - BOX.width) / 2;
    first.y = 0;
    stacks.forEach((stack, index) => settle(stack, index * (BOX.width + across), first.height + down, down));
    return { boxes, narrow, width: Math.max(total, Math.min(width, 330)), height: first.height + (count ? down + tallest : 0) };
  }
  const total = BOX.width + count * (BOX.width + across);
  // Use the room that there is: the columns move apart.
  const spread = count ? Math.min(160, (width - total) / count) : 0;
  const step = BOX.width + across + Math.max(0, spread);
  const height = Math.max(first.height, tallest);
  first.x = 0;
  first.y = (height - first.height) / 2;
  stacks.forEach((stack, index) => settle(stack, (index + 1) * step, (height - (stack.height - down)) / 2, down));
  return { boxes, narrow, width: Math.max(width, count * step + BOX.width), height };
}

function settle(stack, x, y, down) {
  for (const box of stack.boxes) {
    box.x = x;
    box.y = y;
    y += box.height + down;
  }
}

let drawn = null;

function showMap(picture) {
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

// ---------------------------------------------------------------- links as text

function showLinks(picture) {
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

// ---------------------------------------------------------------- pools

/** How a worker is, in words, and how worrying that is. */
const WORKER_STATES = {
  serving: ["serving", ""],
  resting: ["resting", "calm"],
  failing: ["failing", "bad"],
  silent: ["silent", "bad"],
  draining: ["draining", "calm"],
  starting: ["starting", "warn"],
  standing_down: ["restarting", "warn"],
};

function showPools(picture) {
  $("pools-empty").hidden = picture.pools.length > 0;
  list($("pools"), picture.pools, (pool) => pool.key, makePool, (card, pool) => {
    text(part(card, "actor"), pool.name === pool.actor ? pool.actor : `${pool.name} · ${pool.actor}`);
    text(part(card, "kind"), pool.kind);
    const idle = pool.started === 0 && pool.waiting === 0 && pool.rejected.every(([, count]) => count === 0);
    card.classList.toggle("idle", idle);
    const restarted = pool.restarts > 0 && plural(pool.restarts, "worker restarted", "workers restarted");
    text(part(card, "idle"), idle ? ["no requests yet", restarted].filter(Boolean).join(" · ") : "");
    text(part(card, "at"), `on ${pool.at.hostOf.label}, ${pool.at.about.program || "node"} ${pool.at.about.pid || short(pool.at.node)}`);
    figure(card, "rate", rate(pool.rate), "");
    spark(part(card, "rate-curve"), pool.curve);
    figure(card, "latency", pool.p99 === null ? "–" : `${micros(pool.p50)} / ${micros(pool.p99)}`, "");
    spark(part(card, "latency-curve"), pool.latencyCurve);
    const places = pool.workers.reduce((sum, worker) => sum + worker.limit, 0);
    figure(card, "flight", number(pool.inFlight), places ? `of ${number(places)}` : "");
    bar(part(card, "flight-bar"), places ? pool.inFlight / places : 0);
    figure(card, "waiting", number(pool.waiting), pool.waiting > 0 ? `about ${micros(pool.expectedWait * 1000)}` : "", pool.waiting > 0 ? "warn" : "");
    const told = pool.rejected.filter(([, count]) => count > 0).map(([word, count]) => `${number(count)} ${word}`);
    figure(card, "rejected", `${rate(pool.rejectedRate)}/s`, told.join(", ") || "none so far", pool.rejectedRate >= 0.005 ? "bad" : "");
    figure(card, "failed", number(pool.failed), `of ${number(pool.started)}`, pool.failedRate >= 0.005 ? "bad" : "");
    figure(card, "restarts", number(pool.restarts), pool.ejected > 0 ? `${number(pool.ejected)} left out for a while` : "");
    const few = pool.workers.length <= 24 || card.dataset.all === "yes";
    const shown = few ? pool.workers : pool.workers.slice(0, 16);
    text(part(card, "count"), plural(pool.count, "worker"));
    part(card, "more").hidden = shown.length === pool.workers.length;
    text(part(card, "more"), `show all ${number(pool.workers.length)}`);
    list(part(card, "workers"), shown, (worker) => worker.key, makeWorker, showWorker);
  });
}

function showWorker(row, worker) {
  row.dataset.worker = worker.node ?? "";
  const [word, how] = WORKER_STATES[worker.state] ?? [worker.state, "warn"];
  text(part(row, "state"), word);
  tone(part(row, "state"), how);
  text(part(row, "host"), worker.hostLabel);
  const pid = worker.pid ?? worker.at?.about.pid;
  const ended = !worker.node && [worker.last_end, worker.back_in_ms > 0 && `back in ${micros(worker.back_in_ms * 1000)}`].filter(Boolean).join(", ");
  text(part(row, "process"), ended || (pid ? `pid ${pid}` : worker.node ? `node ${short(worker.node)}` : ""));
  text(part(row, "flight"), worker.limit ? `${worker.in_flight}/${worker.limit}` : String(worker.in_flight));
  bar(part(row, "bar"), worker.limit ? worker.in_flight / worker.limit : 0);
  text(part(row, "rate"), rate(worker.rate));
  text(part(row, "half"), worker.p50 === null ? "" : `${micros(worker.p50)} / `);
  text(part(row, "latency"), micros(worker.p99));
  text(part(row, "answered"), number(worker.answered));
}

function figure(card, name, value, beside, how = "") {
  text(part(card, name), value);
  text(part(card, `${name}-beside`), beside);
  tone(part(card, `${name}-figure`), how);
}

function makePool(pool) {
  const one = (name, label, ...below) =>
    el("div", { class: "figure", "data-part": `${name}-figure` },
      el("dt", { "data-part": `${name}-name` }, label),
      el("dd", {}, el("span", { "data-part": name }), " ", el("small", { "data-part": `${name}-beside` })), ...below);
  const curve = (name) => svg("svg", { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true", "data-part": name }, svg("path", { class: "area" }), svg("path"));
  const gauge = (name) => el("span", { class: "bar", "aria-hidden": "true", "data-part": name }, el("i"));
  const head = (label, right) => el("th", { scope: "col", class: right ? "n" : null }, label);
  const card = el("article", { class: "pool", "data-pool": pool.key },
    el("div", { class: "pool-head" },
      el("h3", { "data-part": "actor" }), el("span", { class: "quiet", "data-part": "kind" }), el("span", { class: "quiet", "data-part": "at" }),
      el("span", { class: "quiet", "data-part": "idle" })),
    el("dl", { class: "figures" },
      one("rate", "requests/s", curve("rate-curve")),
      one("latency", "latency, p50 / p99", curve("latency-curve")),
      one("flight", "in flight", gauge("flight-bar")),
      one("waiting", "waiting"),
      one("rejected", "rejected"), one("failed", "failed"), one("restarts", "workers restarted")),
    el("details", { open: pool.started > 0 ? "" : null },
      el("summary", { "data-part": "count" }),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Workers" },
        el("table", {},
          el("thead", {}, el("tr", {}, head("State"), head("Host"), el("th", { scope: "col", class: "wide" }, "Process"), head("In flight"), head("Req/s", true), el("th", { scope: "col", class: "n" }, el("span", { class: "wide" }, "p50 / "), "p99"),
            el("th", { scope: "col", class: "n wide" }, "Answered"))),
          el("tbody", { "data-part": "workers" }))),
      el("button", { class: "more", type: "button", "data-part": "more" })));
  part(card, "more").addEventListener("click", () => {
    card.dataset.all = "yes";
    show();
  });
  return card;
}

function makeWorker() {
  return el("tr", { class: "fresh" },
    el("td", {}, el("span", { class: "state", "data-part": "state" })),
    el("td", { "data-part": "host" }), el("td", { class: "quiet wide", "data-part": "process" }),
    el("td", {}, el("span", { class: "bar", "aria-hidden": "true", "data-part": "bar" }, el("i")), el("span", { "data-part": "flight" })),
    el("td", { class: "n", "data-part": "rate" }), el("td", { class: "n" }, el("span", { class: "wide", "data-part": "half" }), el("span", { "data-part": "latency" })),
    el("td", { class: "n wide", "data-part": "answered" }));
}

function bar(element, share) {
  element.firstChild.style.width = `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%`;
  tone(element, share > 0.75 ? "warn" : "");
}

function spark(element, line) {
  const now = line.at(-1)?.at ?? 0;
  const most = Math.max(1e-9, ...line.map((point) => point.value));
  // The last minute, or as much of it as there is.
  const past = Math.max(10_000, now - (line[0]?.at ?? now));
  const across = (point) => (100 - (100 * (now - point.at)) / past).toFixed(2);
  const at = (point) => `${across(point)} ${(28 - 25 * (point.value / most)).toFixed(2)}`;
  const [area, stroke] = element.children;
  if (line.length < 2) return;
  const path = `M${line.map(at).join("L")}`;
  stroke.setAttribute("d", path);
  area.setAttribute("d", `${path}L100 30L${across(line[0])} 30Z`);
}

// ---------------------------------------------------------------- hosts

/** What a state is called, and how worrying it is. */
const STATES = {
  here: ["this host", ""],
  up: ["up", ""],
  silent: ["does not answer", "warn"],
  link_lost: ["link lost", "warn"],
  lost: ["host lost", "bad"],
  left: ["left", "calm"],
  never_reached: ["never reached", "warn"],
};

function showHosts(picture) {
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

// ---------------------------------------------------------------- the log

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

function note(entries) {
  const last = journal[0]?.number ?? 0;
  for (const entry of entries) if (entry.number > last) journal.unshift(entry);
  journal.length = Math.min(journal.length, MOST);
  showLog();
}

function showLog() {
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

// ---------------------------------------------------------------- coming and going

let latest = null;
let pending = false;

function show() {
  if (!latest) return;
  const { view, now } = latest;
  const picture = latest.picture ?? (latest.picture = digest(view, now));
  text($("mesh"), view.mesh);
  document.title = `${view.mesh} · layer-cake`;
  text($("version"), `layer-cake ${view.version}`);
  $("trouble").hidden = !view.trouble;
  text($("trouble"), view.trouble ? `No newer picture: ${view.trouble}` : "");
  showTotals(picture);
  showMap(picture);
  showLinks(picture);
  showPools(picture);
  showHosts(picture);
}

/** Draws when the browser is ready to, and only the latest; at once where nobody sees it. */
function draw() {
  if (pending) return;
  pending = true;
  const go = () => {
    pending = false;
    show();
  };
  if (document.hidden) setTimeout(go, 0);
  else requestAnimationFrame(go);
}

function status(state, words) {
  $("status").dataset.state = state;
  text($("status").lastChild, words);
}

function connect() {
  const source = new EventSource("/mesh/events");
  source.addEventListener("begin", () => {
    journal = [];
    status("live", "live");
    showLog();
  });
  source.addEventListener("view", (event) => {
    latest = { view: JSON.parse(event.data), now: performance.now() };
    status("live", "live");
    draw();
  });
  source.addEventListener("log", (event) => note(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    const since = latest ? `lost since ${clock(Date.now())}, trying again` : "no answer, trying again";
    if ($("status").dataset.state !== "lost") status("lost", since);
    // Refused rather than lost: another try later, which a browser does not make by itself.
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(connect, 3000);
    }
  });
}

// ---------------------------------------------------------------- light and dark

const THEMES = ["auto", "light", "dark"];

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  text($("theme").lastElementChild, name);
  $("theme").setAttribute("aria-label", name === "auto" ? "Colours: as the system has them" : `Colours: ${name}`);
  try {
    localStorage.setItem("layer-cake-theme", name);
  } catch {
    // Without storage it holds for this visit.
  }
}

function savedTheme() {
  try {
    const name = localStorage.getItem("layer-cake-theme");
    return THEMES.includes(name) ? name : "auto";
  } catch {
    return "auto";
  }
}

theme(savedTheme());
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "auto";
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
$("filter").addEventListener("input", showLog);
$("names-only").addEventListener("change", showLog);
new ResizeObserver(draw).observe($("drawing"));
connect();
