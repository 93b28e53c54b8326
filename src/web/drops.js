// What is being dropped now: how much, and by workload, reason or policy.

import { linkCell, rateCell, textCell, workloadCell } from './cells.js';
import { el, setAttribute, setText, show } from './dom.js';
import { clock, count, duration, rate, some } from './format.js';
import { sparkline } from './sparkline.js';
import { Table } from './table.js';
import { OVER, Toolbar, windowOf } from './toolbar.js';
import { directionLabel, isEbpf, reasonLabel, reasonWhy, workloadName } from './words.js';

const BY = {
  name: 'by',
  label: 'Group by',
  options: [
    ['', 'none'],
    ['workload', 'workload'],
    ['reason', 'reason'],
    ['policy', 'policy'],
  ],
};

export class Drops {
  constructor({ change, href }) {
    this.change = change;
    this.href = href;
    this.toolbar = new Toolbar({ title: 'Dropped now', search: 'Search, or press /', choices: [BY, OVER], change });
    this.figure = el('strong', { class: 'figure' }, '…');
    this.sentence = el('p', { class: 'sentence' }, '');
    this.rests = el('p', { class: 'quiet rests' }, '');
    this.line = sparkline(640, 64, { mirrored: false });
    this.hero = el('div', { class: 'hero card' }, el('div', {}, this.figure, this.sentence, this.rests), this.line.node);
    this.place = el('div');
    this.node = el('section', {}, this.toolbar.node, this.hero, this.place);
  }

  update(model, { query }) {
    this.model = model;
    this.window = windowOf(query);
    this.#hero();
    if (this.by !== (query.by ?? '')) {
      this.by = query.by ?? '';
      this.table = this.#table();
      this.place.replaceChildren(this.table.node);
    }
    const rows = this.#rows();
    show(this.table.node, rows.length > 0);
    this.table.update(rows, { query: query.q, sort: query.sort ?? '-now' });
    this.toolbar.update(query);
  }

  #hero() {
    const { model } = this;
    const { status } = model;
    const keys = model.drops.map((drop) => drop.key);
    const now = model.rateOfDrops(this.window);
    const packets = model.drops.reduce((sum, drop) => sum + drop.packets, 0);
    const without = model.withoutRules();
    const state = without !== null ? 'unprotected' : !model.isCurrent() ? 'unknown' : now === null ? 'waiting' : now > 0 ? 'dropping' : 'calm';
    const figures = {
      unprotected: without === 'vanished' ? 'Calico’s rules have vanished' : 'No rules of Calico’s',
      unknown: status === null ? 'Watching…' : 'Cannot be told now',
      waiting: 'Watching…',
      calm: this.#areAllUnderstood() ? 'Nothing is being dropped' : 'No drops are known',
    };
    setAttribute(this.hero, 'data-state', state);
    setText(this.figure, figures[state] ?? rate(now));
    const where = new Set(model.drops.filter((drop) => this.#rate([drop]) > 0).map((drop) => drop.interface));
    setText(this.sentence, now > 0 ? `packets that open a connection are being dropped, at ${some(where.size, 'workload')}.` : '');
    show(this.sentence, now > 0);
    setText(this.rests, this.#rests(now, packets));
    this.line.update(model.dropCounts.line(keys));
    show(this.line.node, packets > 0);
  }

  /** Whether no rule is left that may drop packets which nobody counts. */
  #areAllUnderstood() {
    return this.model.status?.unrecognised_rules === 0;
  }

  /** What the figure rests on. */
  #rests(now, packets) {
    const { status, workloads } = this.model;
    if (status === null) return 'The first read has not come yet.';
    const parts = [];
    if (this.model.withoutRules() !== null) return 'Nothing is counted where there are no rules; see above.';
    if (!this.model.isCurrent()) parts.push('The counters are not read at present; see above.');
    else if (now === null) parts.push('Two reads are compared; the second one comes in a moment.');
    else if (now === 0 && this.#areAllUnderstood()) {
      const span = `in the last ${duration(Math.floor(this.model.dropCounts.observed(this.window)))}`;
      parts.push(`No packet that opens a connection was dropped ${span} at ${workloads.length === 1 ? 'the one workload' : `any of the ${some(workloads.length, 'workload')}`} with rules.`);
    }
    // What the kernel counts by itself is older than the exporter; what is derived from two reads is not.
    const since = `since the exporter started (${clock(status.started)})`;
    const which = isEbpf(status) ? `, ${since}` : `: by policies ${since}, for other reasons since the kernel counts`;
    if (packets > 0) parts.push(`In all ${count(packets)} so far${which}.`);
    if (isEbpf(status)) parts.push('The eBPF dataplane does not tell which policy drops a packet where several workloads share it, and counts no invalid packets.');
    if (status.unrecognised_rules > 0) parts.push(`${some(status.unrecognised_rules, 'rule')} of Calico could not be understood: what they drop is not in these numbers.`);
    const unknown = this.model.unknownInterfaces;
    if (unknown.ingress + unknown.egress > 0) parts.push(`${some(unknown.ingress + unknown.egress, 'packet')} more to or from interfaces that Calico has no workload for (yet).`);
    if (workloads.some((workload) => [workload.ingress, workload.egress].some((sums) => sums?.exact === false))) {
      parts.push('Some policies may have dropped more: where they also pass packets on, the kernel does not tell which.');
    }
    return parts.join(' ');
  }

  /** The rows: the drops themselves, or grouped. */
  #rows() {
    const groupOf = {
      '': (drop) => drop.key,
      workload: (drop) => drop.interface,
      reason: (drop) => drop.reason,
      policy: (drop) => drop.policy ?? `${drop.reason}/${drop.tier ?? ''}`,
    }[this.by] ?? ((drop) => drop.key);
    const groups = new Map();
    for (const drop of this.model.drops) {
      const group = groups.get(groupOf(drop));
      if (group === undefined) groups.set(groupOf(drop), { key: groupOf(drop), drops: [drop], first: drop });
      else group.drops.push(drop);
    }
    return [...groups.values()];
  }

  #rate(drops) {
    return this.model.dropCounts.sum(drops.map((drop) => drop.key), this.window);
  }

  #numbers(row) {
    return { rate: this.#rate(row.drops), total: row.drops.reduce((sum, drop) => sum + drop.packets, 0) };
  }

  #table() {
    const { href, model } = this;
    const text = (of) => (row) => [...new Set(row.drops.map(of))].join(', ');
    const workload = (row) => ({ ...row.first, ...this.model.workload(row.first.interface) });
    const decider = (drop) => this.#decider(drop);
    const columns = {
      workload: { id: 'workload', label: 'Workload', value: (row) => workloadName(row.first), cell: workloadCell(workload, (row) => href('workload', row.first.interface)) },
      workloads: { id: 'workloads', label: 'Workloads', value: text(workloadName), cell: textCell((row) => listed(row.drops.map(workloadName))) },
      direction: { id: 'direction', label: 'Direction', value: text((drop) => directionLabel(drop.direction)), cell: textCell((row) => directionLabel(row.first.direction)) },
      reason: { id: 'reason', label: 'Reason', value: text((drop) => reasonLabel(drop.reason)), cell: textCell((row) => listed(row.drops.map((drop) => reasonLabel(drop.reason)))) },
      why: {
        id: 'reason',
        label: 'Reason',
        value: (row) => reasonLabel(row.first.reason),
        cell: linkCell({ href: (row) => href('drops', '', { q: reasonLabel(row.first.reason) }), text: (row) => reasonLabel(row.first.reason), below: (row) => reasonWhy(row.first.reason) }),
      },
      by: {
        id: 'by',
        label: 'Policy or tier',
        value: (row) => decider(row.first),
        cell: linkCell({ href: (row) => this.#deciderHref(row.first), text: (row) => decider(row.first), below: (row) => (row.first.policy && row.first.tier ? `tier ${row.first.tier}` : '') }),
      },
      policies: { id: 'by', label: 'Policies', value: text(decider), cell: textCell((row) => listed(row.drops.map(decider))) },
    };
    const shown = {
      '': ['workload', 'direction', 'reason', 'by'],
      workload: ['workload', 'reason', 'policies'],
      reason: ['why', 'workloads', 'policies'],
      policy: ['by', 'reason', 'workloads'],
    }[this.by] ?? ['workload', 'direction', 'reason', 'by'];
    const now = {
      id: 'now',
      label: 'Dropped',
      hint: 'Packets per second over the chosen time, and in all',
      numeric: true,
      value: (row) => [this.#numbers(row).rate ?? 0, this.#numbers(row).total],
      cell: rateCell((row) => this.#numbers(row), 'drop'),
    };
    const history = {
      id: 'history',
      label: 'History',
      hint: 'Dropped per second, each row on its own scale',
      cell: (cell) => {
        const line = sparkline(110, 26, { mirrored: false });
        cell.append(line.node);
        return (row) => line.update(this.model.dropCounts.line(row.drops.map((drop) => drop.key)));
      },
    };
    return new Table({
      label: 'Dropped packets per second, and in all',
      columns: [...shown.slice(0, 1).map((id) => columns[id]), now, ...shown.slice(1).map((id) => columns[id]), history],
      keyOf: (row) => row.key,
      textOf: (row) => row.drops.map((drop) => [drop.namespace, drop.pod, drop.interface, directionLabel(drop.direction), reasonLabel(drop.reason), decider(drop)].join(' ')).join(' '),
      classOf: (row) => (this.#rate(row.drops) > 0 ? 'dropping' : ''),
      sorted: (sort) => this.change({ sort }),
      none: () => '',
    });
  }

  /** Who dropped them: a policy, several of which one did, or the end of a tier. */
  #decider(drop) {
    if (drop.policy) {
      const names = drop.policy.split(',').map((policy) => this.model.policyName(policy));
      return names.length === 1 ? names[0] : `one of ${names.join(', ')}`;
    }
    return drop.tier ? `end of tier ${drop.tier}` : '–';
  }

  #deciderHref(drop) {
    return drop.policy && !drop.policy.includes(',') ? this.href('policy', drop.policy) : this.href('workload', drop.interface);
  }
}

/** Some names in a few words. */
function listed(names) {
  const different = [...new Set(names)];
  return different.length <= 3 ? different.join(', ') : `${different.slice(0, 2).join(', ')} and ${count(different.length - 2)} more`;
}
