// Counters over time, and the rates computed from them. Pure.

/** How long reads are kept, in seconds. */
const SPAN = 3600;
/** The newest `NEWEST` reads are all kept. Of older reads, one in `APART` seconds is kept. */
const NEWEST = 100;
const APART = 10;

/** Counters of many things, sampled together. */
export class History {
  constructor() {
    this.times = [];
    /** For each time: whether nothing was counted between the time before and this one. */
    this.gaps = [];
    this.series = new Map();
    /** When each key was last present. */
    this.seen = new Map();
  }

  /**
   * Adds the counters of one read, as entries of key and value. `before(key)` returns the value that a new key had at the previous
   * read, or NaN if it is unknown.
   */
  add(time, counters, before = () => NaN) {
    const { times, series } = this;
    if (times.length > 0 && time <= times.at(-1)) return;
    times.push(time);
    this.gaps.push(false);
    for (const [key, value] of counters) {
      let values = series.get(key);
      if (values === undefined) {
        values = new Array(times.length - 1).fill(NaN);
        if (times.length > 1) values[times.length - 2] = before(key);
        series.set(key, values);
      } else if (value < values.at(-1)) {
        // A counter that went back was reset or replaced. Its earlier value cannot be compared.
        values[times.length - 2] = NaN;
      }
      values.push(value);
      this.seen.set(key, time);
    }
    // A missing key keeps its value. If it has ended, it counts nothing more. If its count is only unknown now, the value that it
    // returns with includes what it counted meanwhile.
    for (const values of series.values()) {
      if (values.length < times.length) values.push(values.at(-1));
    }
    this.#thin();
  }

  /** Replaces the history: `times`, the `gaps` between them, and the values of each key. */
  seed({ times, gaps, series }) {
    Object.assign(this, { times, gaps, series, seen: new Map([...series.keys()].map((key) => [key, times.at(-1)])) });
  }

  #thin() {
    const { times } = this;
    const at = times.length - NEWEST;
    if (at > 1 && times[at + 1] - times[at - 1] <= APART && !this.gaps[at] && !this.gaps[at + 1]) this.#remove(at);
    while (times[0] < times.at(-1) - SPAN) this.#remove(0);
  }

  #remove(at) {
    this.times.splice(at, 1);
    this.gaps.splice(at, 1);
    for (const [key, values] of this.series) {
      // What is unknown between two reads is also unknown between the remaining ones.
      if (Number.isNaN(values[at]) && at > 0) values[at - 1] = NaN;
      values.splice(at, 1);
      if (this.seen.get(key) < this.times[0]) {
        this.series.delete(key);
        this.seen.delete(key);
      }
    }
  }

  /** Forgets everything. */
  clear() {
    this.seed({ times: [], gaps: [], series: new Map() });
  }

  /** The index of the read that ends at a time or next after it; -1 if nothing was counted then. */
  #end(at) {
    if (at >= this.times.at(-1)) return this.times.length - 1;
    const end = at < this.times[0] ? -1 : this.times.findIndex((time) => time >= at);
    return this.gaps[end] ? -1 : end;
  }

  /** When the read that covers a time ended. */
  endOf(at) {
    return this.times[this.#end(at)];
  }

  /** The index where the last `seconds` before `end` begin: the newest sample that is at least as old, or the oldest that is known. */
  #begin(values, end, seconds) {
    let from = end;
    while (from > 0 && this.times[from] > this.times[end] - seconds && !this.gaps[from] && !Number.isNaN(values[from - 1])) from -= 1;
    return from;
  }

  /** Packets per second over the last `seconds` before a time; null if unknown. */
  rate(key, seconds, at = Infinity) {
    const values = this.series.get(key);
    const end = this.#end(at);
    if (values === undefined || end < 0 || Number.isNaN(values[end])) return null;
    const from = this.#begin(values, end, seconds);
    return from < end ? (values[end] - values[from]) / (this.times[end] - this.times[from]) : null;
  }

  /** How many of the last `seconds` before a time are covered by reads. */
  observed(seconds, at = Infinity) {
    const end = this.#end(at);
    return end < 1 ? 0 : Math.min(seconds, this.times[end] - this.times[this.#begin([], end, seconds)]);
  }

  /** The sum of several rates; null if none of them is known. */
  sum(keys, seconds, at = Infinity) {
    const rates = keys.map((key) => this.rate(key, seconds, at)).filter((rate) => rate !== null);
    return rates.length > 0 ? rates.reduce((sum, rate) => sum + rate, 0) : null;
  }

  /** The rates between the reads of the last `seconds`, summed over keys: points of time and rate, or null if nothing was counted. */
  line(keys, seconds) {
    const lines = keys.map((key) => this.series.get(key)).filter((values) => values !== undefined);
    const points = [];
    for (let at = Math.max(1, this.times.findLastIndex((time) => time <= this.times.at(-1) - seconds)); at < this.times.length; at += 1) {
      let packets = 0;
      for (const values of lines) {
        const more = values[at] - values[at - 1];
        if (more > 0) packets += more;
      }
      points.push([this.times[at], this.gaps[at] ? null : packets / (this.times[at] - this.times[at - 1])]);
    }
    return points;
  }
}
