// The mesh in numbers.

import { $, el, list, text, tone } from "./dom.js";
import { micros, number, rate } from "./format.js";

export function showTotals({ view, pools, nodes }) {
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
