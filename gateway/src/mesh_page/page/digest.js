// The picture worked out: what came from the mesh, with rates, names for nodes, links and pools.

import { plural, short } from "./format.js";
import { history, rates } from "./rates.js";

const SILENT = { uptime_us: 0, actor_count: 0, actors: [], dead_letters: 0, pools: [] };

/** Everything that is drawn, from what came. */
export function digest(view, now) {
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
      const of = (name) => rates.of(`${node.node}>${peer.node}:${name}`, node.uptime, session[name]);
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
  history.end(now);
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
