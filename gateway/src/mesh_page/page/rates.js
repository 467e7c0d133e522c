// Rates of counters, and their last minute.

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

  /** Forgets what has not been told for a minute. */
  end(now) {
    for (const [key, line] of this.#lines) if (now - line.at(-1).at > 60_000) this.#lines.delete(key);
  }
}

export const rates = new Rates();
export const history = new History();
