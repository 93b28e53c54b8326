// The view of drops, now or at a time of the last hour: how much, and by workload, reason or policy.

import { linkCell, linkOrListCell, rateCell, textCell, workloadCell } from './cells.js';
import { el, setText, show, whenSeen } from './dom.js';
import { clock, count } from './format.js';
import { Hero } from './hero.js';
import { fromTime, toTime } from './route.js';
import { finds, term, termsOf, VERDICTS } from './search.js';
import { sparkline } from './sparkline.js';
import { Table } from './table.js';
import { OVER, Toolbar, windowOf } from './toolbar.js';
import { Witnesses } from './witnesses.js';
import { directionLabel, reasonLabel, reasonWhy, workloadName, workloadText } from './words.js';

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

/** The key and the columns of each grouping. Without `by`, each drop is its own group. */
const GROUPS = {
  '': { keyOf: (drop) => drop.key, columns: ['workload', 'direction', 'reason', 'by'] },
  workload: { keyOf: (drop) => drop.interface, columns: ['workload', 'reasons', 'policies'] },
  reason: { keyOf: (drop) => drop.reason, columns: ['why', 'workloads', 'policies'] },
  policy: { keyOf: (drop) => drop.policy ?? `${drop.reason}/${drop.tier ?? ''}`, columns: ['by', 'reasons', 'workloads'] },
};

export class Drops {
  constructor({ change, href }) {
    Object.assign(this, { change, href });
    this.toolbar = new Toolbar({ title: 'Dropped now', search: true, choices: [BY, OVER], records: () => this.table.records(), change });
    this.hero = new Hero((at) => change({ at: toTime(at) }));
    this.place = el('div');
    this.witnesses = new Witnesses({ href, whose: true });
    this.node = el('section', {}, this.toolbar.node, this.hero.node, this.place, this.witnesses.node);
  }

  update(model, { query }) {
    Object.assign(this, { model, window: windowOf(query), at: fromTime(query.at) });
    const drops = model.dropsAt(this.at, this.window);
    this.title = this.at === Infinity ? 'Dropped now' : `Dropped at ${clock(this.at)}`;
    setText(this.toolbar.title, this.title);
    this.hero.update(model, drops, this);
    const by = Object.hasOwn(GROUPS, query.by) ? query.by : '';
    if (this.by !== by) {
      this.by = by;
      this.table = this.#table();
      this.place.replaceChildren(this.table.node);
    }
    const terms = termsOf(query.q ?? '');
    const found = drops.filter((drop) => finds(terms, this.#searched(drop)));
    show(this.table.node, drops.length > 0);
    this.table.update(this.#rows(found), { sort: query.sort ?? '-now', query: query.q ? '' : undefined });
    this.witnesses.update(model.flows.answer, (flow) => flow.verdict === 'drop');
    this.toolbar.update(query, found.length === drops.length ? '' : `${count(found.length)} of ${count(drops.length)}`);
  }

  #rows(drops) {
    const groups = Map.groupBy(drops, GROUPS[this.by].keyOf);
    return [...groups].map(([key, group]) => ({ key, drops: group, first: group[0] }));
  }

  #numbers({ drops }) {
    const rate = this.model.dropCounts.sum(drops.map((drop) => drop.key), this.window, this.at);
    return { rate, total: drops.reduce((sum, drop) => sum + drop.packets, 0) };
  }

  #table() {
    const { href } = this;
    const text = (of) => (row) => listed(row.drops.map(of));
    const words = (id, label, of) => ({ id, label, value: text(of), cell: textCell(text(of)) });
    const workload = (row) => ({ ...row.first, ...this.model.workload(row.first.interface) });
    const reason = (drop) => reasonLabel(drop.reason);
    const columns = {
      workload: { id: 'workload', label: 'Workload', value: (row) => workloadName(row.first), cell: workloadCell(workload, (row) => href('workload', row.first.interface)) },
      workloads: words('workloads', 'Workloads', workloadName),
      direction: words('direction', 'Direction', (drop) => directionLabel(drop.direction)),
      reason: words('reason', 'Reason', reason),
      reasons: words('reason', 'Reasons', reason),
      why: {
        id: 'reason',
        label: 'Reason',
        value: (row) => reason(row.first),
        cell: linkCell({ href: (row) => this.#filtered(term('reason', row.first.reason)), text: (row) => reason(row.first), below: (row) => reasonWhy(row.first.reason) }),
      },
      by: { id: 'by', label: 'Policy or tier', value: (row) => this.#decider(row.first).text, cell: linkOrListCell((row) => this.#decider(row.first)) },
      policies: words('by', 'Policies', (drop) => this.#decider(drop).text),
      now: {
        id: 'now',
        label: 'Dropped',
        hint: 'Packets per second over the chosen time, and in all',
        numeric: true,
        value: (row) => [this.#numbers(row).rate ?? 0, this.#numbers(row).total],
        cell: rateCell((row) => this.#numbers(row), 'drop'),
      },
      history: { id: 'history', label: 'History', hint: 'Dropped per second in the last hour, each row on its own scale', cell: (cell) => this.#history(cell) },
    };
    const [first, ...rest] = GROUPS[this.by].columns;
    return new Table({
      label: 'Dropped packets per second, and in all',
      columns: [first, 'now', ...rest, 'history'].map((id) => columns[id]),
      keyOf: (row) => row.key,
      searched: (row) => ({ text: this.#searched(row.first).text }),
      classOf: (row) => (this.#numbers(row).rate > 0 ? 'dropping' : ''),
      record: (row) => this.#record(row),
      sorted: (sort) => this.change({ sort }),
      none: () => 'Nothing here matches the search.',
    });
  }

  #history(cell) {
    const line = sparkline(110, 26, { mirrored: false, span: Infinity });
    cell.append(line.node);
    return whenSeen(cell, (row) => line.update(this.model.dropCounts.line(row.drops.map((drop) => drop.key), Infinity)));
  }

  /** What dropped them, as `{ text, href, below, list }`: a policy, one policy of a list, or the end of a tier. */
  #decider({ policy, tier, interface: device }) {
    const link = (label) => ({ text: this.model.policyName(label), href: this.href('policy', label) });
    const below = policy && tier ? `tier ${tier}` : '';
    if (policy?.includes(',')) {
      const list = policy.split(',').map(link);
      return { text: `1 of ${list.length} policies`, list, below };
    }
    if (policy) return { ...link(policy), below };
    return tier ? { text: `end of tier ${tier}`, href: this.#filtered(`reason:no_policy ${term('tier', tier)}`) } : { text: '–', href: this.href('workload', device) };
  }

  #filtered(q) {
    return this.href('drops', '', { q, at: toTime(this.at) });
  }

  #searched(drop) {
    const policies = drop.policy?.split(',') ?? [];
    const names = policies.map((policy) => this.model.policyName(policy));
    const workload = { ...drop, ...this.model.workload(drop.interface) };
    return {
      text: [workloadText(workload), directionLabel(drop.direction), reasonLabel(drop.reason), ...names, drop.tier ? `tier ${drop.tier}` : ''].join(' '),
      ns: [drop.namespace],
      tier: [drop.tier ?? ''],
      policy: [...policies, ...names],
      reason: [drop.reason, reasonLabel(drop.reason)],
      verdict: VERDICTS.deny,
    };
  }

  /** The record to export: a drop with the API's fields, or the distinct values of all drops in a group. */
  #record(row) {
    const { rate, total } = this.#numbers(row);
    const numbers = { packets: total, packets_per_second: rate };
    const { namespace, pod, interface: device, direction, reason, tier, policy } = row.first;
    if (this.by === '') return { namespace, pod, interface: device, direction, reason, tier, policy, ...numbers };
    const all = (of) => [...new Set(row.drops.map(of).filter((value) => value !== null))];
    return { workloads: all(workloadName), reasons: all((drop) => drop.reason), tiers: all((drop) => drop.tier), policies: all((drop) => drop.policy), ...numbers };
  }
}

/** Joins names. Of more than three, two are listed and the rest is counted. */
function listed(names) {
  const different = [...new Set(names)];
  return different.length <= 3 ? different.join(', ') : `${different.slice(0, 2).join(', ')} and ${count(different.length - 2)} more`;
}
