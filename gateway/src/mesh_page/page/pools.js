// Pools and their workers.

import { $, el, list, part, svg, text, tone } from "./dom.js";
import { micros, number, plural, rate, short } from "./format.js";

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

export function showPools(picture) {
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
    document.dispatchEvent(new Event("redraw"));
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
