// Counters over time, and what they say per second. Pure.

/** How many reads are kept: some three minutes. */
const LENGTH = 100;

/** Counters of many things, sampled together. */
export class History {
  constructor() {
    this.times = [];
    this.series = new Map();
  }

  /**
   * Takes in the counters of one read, as entries of key and value. `before(key)` is the value that a new key had at the read
   * before this: NaN if nobody knows.
   */
  add(time, counters, before = () => NaN) {
    const { times, series } = this;
    if (times.length > 0 && time <= times.at(-1)) return;
    times.push(time);
    const seen = new Set();
    for (const [key, value] of counters) {
      seen.add(key);
      let line = series.get(key);
      // A counter that went back is another counter: what it was says nothing about what it is.
      if (line === undefined || value < line.values.at(-1)) {
        line = { values: new Array(times.length - 1).fill(NaN), first: null };
        if (times.length > 1) line.values[times.length - 2] = before(key);
        series.set(key, line);
      }
      line.values.push(value);
      if (line.first === null) {
        const at = line.values.findIndex((known) => !Number.isNaN(known));
        line.first = { time: times[at], value: line.values[at] };
      }
    }
    for (const [key, line] of series) {
      if (!seen.has(key)) series.delete(key);
      else if (times.length > LENGTH) line.values.shift();
    }
    if (times.length > LENGTH) times.shift();
  }

  /** Forgets everything. */
  clear() {
    this.times = [];
    this.series.clear();
  }

  /** Packets per second over the last so many seconds, `Infinity` for all that were seen; null while that cannot be told. */
  rate(key, seconds) {
    const line = this.series.get(key);
    if (line === undefined) return null;
    const end = this.times.at(-1);
    const from = seconds === Infinity ? line.first : this.#sample(line, end - seconds);
    return end > from.time ? (line.values.at(-1) - from.value) / (end - from.time) : null;
  }

  /** How many of the last so many seconds lie between two reads: what can be told of. */
  observed(seconds) {
    if (this.times.length < 2) return 0;
    const end = this.times.at(-1);
    return Math.min(seconds, end - this.times[0]);
  }

  /** The newest sample that is at least so old, or the oldest there is. */
  #sample(line, time) {
    let at = this.times.length - 1;
    while (at > 0 && this.times[at] > time && !Number.isNaN(line.values[at - 1])) at -= 1;
    return { time: this.times[at], value: line.values[at] };
  }

  /** The sum of several rates: null if none of them is known. */
  sum(keys, seconds) {
    const rates = keys.map((key) => this.rate(key, seconds)).filter((rate) => rate !== null);
    return rates.length > 0 ? rates.reduce((sum, rate) => sum + rate, 0) : null;
  }

  /** The rates between reads, summed over keys: points of time and rate. */
  line(keys) {
    const lines = keys.map((key) => this.series.get(key)).filter((line) => line !== undefined);
    const points = [];
    for (let at = 1; at < this.times.length; at += 1) {
      let packets = 0;
      for (const { values } of lines) {
        const more = values[at] - values[at - 1];
        if (more > 0) packets += more;
      }
      points.push([this.times[at], packets / (this.times[at] - this.times[at - 1])]);
    }
    return points;
  }
}
