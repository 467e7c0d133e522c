// Numbers, times and identities for people.

export const short = (id) => id.slice(0, 4);
export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many ?? one + "s"}`;

export function number(n) {
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
export const rate = (n) => (n < 0.005 ? "0" : number(n));

export function bytes(n) {
  if (n < 1000) return `${Math.round(n)} B`;
  return n < 1e6 ? `${trim(n / 1e3)} kB` : `${trim(n / 1e6)} MB`;
}

export function micros(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  return us < 1e6 ? `${trim(us / 1e3)} ms` : `${trim(us / 1e6)} s`;
}

export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, "0")}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}m`;
  return `${Math.floor(s / 86400)}d${Math.floor((s % 86400) / 3600)}h`;
}

export function clock(at) {
  const date = new Date(at);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
