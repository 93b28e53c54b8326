// The view of all workloads, with rates and small charts of history.

import { rateCell, workloadCell } from './cells.js';
import { el, whenSeen } from './dom.js';
import { VERDICTS } from './search.js';
import { sparkline } from './sparkline.js';
import { Table, UNKNOWN } from './table.js';
import { OVER, Toolbar, windowOf } from './toolbar.js';
import { reasonLabel, workloadFields, workloadName, workloadText } from './words.js';

export class Workloads {
  constructor({ change, href }) {
    this.toolbar = new Toolbar({ title: 'Workloads', search: true, choices: [OVER], records: () => this.table.records(), change });
    const numbers = (direction, verdict) => (row) => this.#numbers(row, direction, verdict);
    const column = (direction, verdict, label, hint, className) => ({
      id: `${direction}-${verdict}`,
      label,
      hint,
      numeric: true,
      value: (row) => sortable(this.#numbers(row, direction, verdict)),
      cell: rateCell(numbers(direction, verdict), className),
    });
    this.table = new Table({
      label: 'Workloads with packets accepted and dropped per second, and in all',
      columns: [
        { id: 'workload', label: 'Workload', value: workloadName, cell: workloadCell((row) => row, (row) => href('workload', row.interface)) },
        column('ingress', 'accepted', 'In, accepted', 'Connections to the workload that policies or profiles let in', ''),
        column('ingress', 'dropped', 'In, dropped', 'Packets to the workload that were dropped', 'drop'),
        column('egress', 'accepted', 'Out, accepted', 'Connections from the workload that policies or profiles let out', ''),
        column('egress', 'dropped', 'Out, dropped', 'Packets from the workload that were dropped', 'drop'),
        { id: 'dropped', value: (row) => this.#dropped(row) },
        { id: 'history', label: 'History', hint: 'Above the line accepted, below it dropped; each on its own scale', cell: (cell) => this.#history(cell) },
      ],
      keyOf: (row) => row.interface,
      searched: (row) => this.#searched(row),
      classOf: (row) => (this.#dropped(row)[0] > 0 ? 'dropping' : ''),
      record: (row) => this.#record(row),
      sorted: (sort) => change({ sort }),
      none: () => 'There are no workloads on this node.',
    });
    this.node = el('section', {}, this.toolbar.node, this.table.node);
  }

  update(model, { query }) {
    this.model = model;
    this.window = windowOf(query);
    this.drops = Map.groupBy(model.drops, (drop) => drop.interface);
    const found = this.table.update(model.workloads, { query: query.q, sort: query.sort ?? '-dropped' });
    this.toolbar.update(query, found === model.workloads.length ? `${found}` : `${found} of ${model.workloads.length}`);
  }

  #numbers(row, direction, verdict) {
    if (!row[direction]) return null;
    const exact = verdict === 'dropped' ? row[direction].exact : row[direction].accepted_exact !== false;
    return { rate: this.model.counts.rate(`${row.interface} ${direction} ${verdict}`, this.window), total: row[direction][verdict], exact };
  }

  /** The drops in both directions: per second, and in all. */
  #dropped(row) {
    const both = ['ingress', 'egress'].map((direction) => this.#numbers(row, direction, 'dropped')).filter((numbers) => numbers !== null);
    return [both.reduce((sum, numbers) => sum + (numbers.rate ?? 0), 0), both.reduce((sum, numbers) => sum + numbers.total, 0)];
  }

  #searched(row) {
    const drops = this.drops.get(row.interface) ?? [];
    const sums = [row.ingress, row.egress].filter(Boolean);
    return {
      text: workloadText(row),
      ns: [row.namespace],
      policy: this.model.policiesOf(row.interface),
      reason: drops.flatMap((drop) => [drop.reason, reasonLabel(drop.reason)]),
      tier: drops.map((drop) => drop.tier ?? ''),
      verdict: [...(sums.some((sum) => sum.accepted > 0) ? VERDICTS.accept : []), ...(sums.some((sum) => sum.dropped > 0) ? VERDICTS.deny : [])],
    };
  }

  #record(row) {
    const record = workloadFields(row);
    for (const direction of ['ingress', 'egress']) {
      for (const verdict of ['accepted', 'dropped']) {
        const numbers = this.#numbers(row, direction, verdict);
        record[`${direction}_${verdict}`] = numbers?.total ?? null;
        record[`${direction}_${verdict}_per_second`] = numbers?.rate ?? null;
      }
    }
    return record;
  }

  #history(cell) {
    const line = sparkline(132, 30);
    cell.append(line.node);
    return whenSeen(cell, (row) => {
      const keys = (verdict) => ['ingress', 'egress'].map((direction) => `${row.interface} ${direction} ${verdict}`);
      line.update(this.model.counts.line(keys('accepted'), 180), this.model.counts.line(keys('dropped'), 180));
    });
  }
}

function sortable(numbers) {
  return numbers === null ? [UNKNOWN, UNKNOWN] : [numbers.rate ?? 0, numbers.total];
}
