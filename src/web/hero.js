// The card above the drops: their rate in one figure, what it is based on, and the last hour, in which a time can be chosen.

import { el, setAttribute, setText, show } from './dom.js';
import { clock, count, duration, rate, some } from './format.js';
import { sparkline } from './sparkline.js';
import { isEbpf } from './words.js';

export class Hero {
  /** `chosen(at)` is called with a time in seconds, or Infinity for now. */
  constructor(chosen) {
    this.figure = el('strong', { class: 'figure' }, '…');
    this.sentence = el('p', { class: 'sentence' }, '');
    this.rests = el('p', { class: 'quiet rests' }, '');
    this.line = sparkline(640, 64, { mirrored: false, span: Infinity });
    this.slider = el('input', { type: 'range', 'aria-label': 'Time to look at', step: 'any' });
    this.first = el('span');
    this.back = el('button', { type: 'button' }, 'Back to now');
    const ends = el('div', { class: 'quiet span' }, this.first, this.back, el('span', {}, 'now'));
    this.chart = el('div', { class: 'chart' }, this.line.node, this.slider, ends);
    this.node = el('div', { class: 'hero card' }, el('div', {}, this.figure, this.sentence, this.rests), this.chart);
    this.slider.addEventListener('input', () => {
      const [at, last] = [Number(this.slider.value), Number(this.slider.max)];
      chosen(at < last ? at : Infinity);
    });
    // A slider that is being dragged must not move by itself.
    for (const [event, isHeld] of [['pointerdown', true], ['pointerup', false], ['pointercancel', false]]) {
      this.slider.addEventListener(event, () => (this.isHeld = isHeld));
    }
    this.back.addEventListener('click', () => chosen(Infinity));
  }

  /** `drops` are those of the `window` seconds before the time `at`. */
  update(model, drops, { at, window }) {
    Object.assign(this, { model, window });
    const now = at === Infinity ? model.rateOfDrops(window) : (model.dropCounts.sum(drops.map((drop) => drop.key), window, at) ?? 0);
    const state = at === Infinity ? this.#state(now) : model.dropCounts.observed(window, at) === 0 ? 'lost' : now > 0 ? 'dropping' : 'quiet';
    setAttribute(this.node, 'data-state', state);
    setText(this.figure, this.#figures()[state] ?? rate(now));
    const where = new Set(drops.filter((drop) => model.dropCounts.rate(drop.key, window, at) > 0).map((drop) => drop.interface));
    const tense = at === Infinity ? 'are' : 'were';
    setText(this.sentence, now > 0 ? `packets that open a connection ${tense} being dropped, at ${some(where.size, 'workload')}.` : '');
    // Its space is kept while it may still appear, so that nothing below it jumps.
    show(this.sentence, now > 0 || state === 'waiting' || state === 'first');
    setText(this.rests, at === Infinity ? this.#rests(now) : this.#restsOf(at, state));
    this.#timeline(at);
  }

  #state(now) {
    const { model } = this;
    if (model.withoutRules() !== null) return 'unprotected';
    if (!model.isCurrent()) return model.status === null ? 'first' : 'unknown';
    return now === null ? 'waiting' : now > 0 ? 'dropping' : 'calm';
  }

  #figures() {
    return {
      unprotected: this.model.withoutRules() === 'vanished' ? 'Calico’s rules have vanished' : 'No rules of Calico’s',
      unknown: 'Unknown now',
      lost: 'Not known',
      first: 'Watching…',
      waiting: 'Watching…',
      calm: this.#areAllUnderstood() ? 'Nothing is being dropped' : 'No drops are known',
      quiet: this.#areAllUnderstood() ? 'Nothing was being dropped' : 'No drops are known',
    };
  }

  /** Whether all rules are understood, so that no drops are left out of the counts. */
  #areAllUnderstood() {
    return this.model.status?.unrecognised_rules === 0;
  }

  #restsOf(at, state) {
    if (state === 'lost') return `Nothing is known of ${clock(at)}: the exporter keeps an hour, and only while it runs and can read the counters.`;
    return `In the ${duration(this.model.dropCounts.observed(this.window, at))} before ${clock(this.model.dropCounts.endOf(at))}. The address of this page leads to that time for as long as it is known: an hour.`;
  }

  /** What the figure is based on, in words. */
  #rests(now) {
    const { status, workloads, drops } = this.model;
    if (status === null) return 'The first read has not come yet.';
    if (this.model.withoutRules() !== null) return 'Nothing is counted where there are no rules; see above.';
    const packets = drops.reduce((sum, drop) => sum + drop.packets, 0);
    const parts = [];
    if (!this.model.isCurrent()) parts.push('The counters are not read at present; see above.');
    else if (now === null) parts.push('Two reads are compared; the second one comes in a moment.');
    else if (now === 0 && this.#areAllUnderstood()) {
      const span = `in the last ${duration(Math.floor(this.model.dropCounts.observed(this.window)))}`;
      parts.push(`No packet that opens a connection was dropped ${span} at ${workloads.length === 1 ? 'the one workload' : `any of the ${some(workloads.length, 'workload')}`} with rules.`);
    }
    // The kernel's own counts are older than the exporter. Derived counts, which compare two reads, start with it.
    const since = `since the exporter started (${clock(status.started)})`;
    const which = isEbpf(status) ? `, ${since}` : `: by policies ${since}, for other reasons since the kernel counts`;
    if (packets > 0) parts.push(`In all ${count(packets)} so far${which}.`);
    if (isEbpf(status)) parts.push('If several workloads share a policy, the eBPF dataplane does not show which policy drops a packet. It counts no invalid packets.');
    if (status.unrecognised_rules > 0) parts.push(`${some(status.unrecognised_rules, 'rule')} of Calico could not be understood: what they drop is not in these numbers.`);
    const unknown = this.model.unknownInterfaces;
    if (unknown.ingress + unknown.egress > 0) parts.push(`${some(unknown.ingress + unknown.egress, 'packet')} more to or from interfaces that Calico has no workload for (yet).`);
    if (workloads.some((workload) => [workload.ingress, workload.egress].some((sums) => sums?.exact === false))) {
      parts.push('Policies that also pass packets on may have dropped more: the kernel counts both together.');
    }
    return parts.join(' ');
  }

  #timeline(at) {
    const { times, series } = this.model.dropCounts;
    const isKnown = times.length > 1;
    setAttribute(this.chart, 'class', `chart${isKnown ? '' : ' waiting'}`);
    this.back.style.visibility = at === Infinity ? 'hidden' : '';
    if (!isKnown) return;
    this.line.update(this.model.dropCounts.line([...series.keys()], Infinity));
    const [first, last] = [times[0], times.at(-1)];
    setText(this.first, clock(first));
    if (this.isHeld) return;
    const end = Math.max(last, first + 60);
    Object.assign(this.slider, { min: end - Math.max(end - first, 60), max: end });
    this.slider.value = Math.min(at, end);
    setAttribute(this.slider, 'aria-valuetext', at === Infinity ? 'now' : clock(at));
  }
}
