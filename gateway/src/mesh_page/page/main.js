// The mesh page: reads events from /mesh/events, and draws what they say.

import { digest } from "./digest.js";
import { $, text } from "./dom.js";
import { clock } from "./format.js";
import { showHosts } from "./hosts.js";
import { begin, note, showLog } from "./log.js";
import { showLinks, showMap } from "./map.js";
import { showNames } from "./names.js";
import { showPools } from "./pools.js";
import { showTotals } from "./totals.js";

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
  showNames(picture);
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

let source = null;
/** The next try, and the end of a feed that nobody sees. */
let again = 0;
let unseen = 0;

function connect() {
  clearTimeout(again);
  source?.close();
  source = new EventSource("/mesh/events");
  source.addEventListener("begin", () => {
    begin();
    status("live", "live");
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
    if (source.readyState === EventSource.CLOSED) again = setTimeout(retry, 3000);
  });
}

/** After the gateway's restart a cookie is worth nothing: then the form asks for the key. */
async function retry() {
  const answer = await fetch("/mesh", { method: "HEAD" }).catch(() => null);
  if (answer?.status === 401) location.reload();
  else if (source.readyState === EventSource.CLOSED && !document.hidden) connect();
}

/** A page that nobody sees for a while does not keep the mesh busy. */
const UNSEEN = 30_000;

document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.hidden) {
    unseen = setTimeout(() => {
      clearTimeout(again);
      source.close();
      status("wait", "paused while out of sight");
    }, UNSEEN);
  } else if (source.readyState === EventSource.CLOSED) {
    status("wait", "connecting");
    connect();
  }
});

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
$("find-name").addEventListener("input", draw);
document.addEventListener("redraw", draw);
new ResizeObserver(draw).observe($("drawing"));
connect();
