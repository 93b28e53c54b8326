// All workloads, with rates and small lines of history.

import { rateCell, workloadCell } from './cells.js';
import { el } from './dom.js';
import { sparkline } from './sparkline.js';
import { Table, UNKNOWN } from './table.js';
import { OVER, Toolbar, windowOf } from './toolbar.js';
import { workloadName } from './words.js';

export class Workloads {
  constructor({ change, href }) {
    this.toolbar = new Toolbar({ title: 'Workloads', search: 'Search, or press /', choices: [OVER], change });
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
        { id: 'history', label: 'History', hint: 'Above the line accepted, below it dropped; each on its own scale', cell: (cell) => this.#history(cell) },
      ],
      keyOf: (row) => row.interface,
      textOf: searched,
      classOf: (row) => (this.#dropping(row) ? 'dropping' : ''),
      sorted: (sort) => change({ sort }),
      none: () => 'There are no workloads on this node.',
    });
    this.node = el('section', {}, this.toolbar.node, this.table.node);
  }

  update(model, { query }) {
    this.model = model;
    this.window = windowOf(query);
    const found = this.table.update(model.workloads, { query: query.q, sort: query.sort ?? 'workload' });
    this.toolbar.update(query, found === model.workloads.length ? `${found}` : `${found} of ${model.workloads.length}`);
  }

  #numbers(row, direction, verdict) {
    if (!row[direction]) return null;
    const exact = verdict === 'dropped' ? row[direction].exact : row[direction].accepted_exact !== false;
    return { rate: this.model.counts.rate(`${row.interface} ${direction} ${verdict}`, this.window), total: row[direction][verdict], exact };
  }

  #dropping(row) {
    return ['ingress', 'egress'].some((direction) => this.#numbers(row, direction, 'dropped')?.rate > 0);
  }

  #history(cell) {
    const line = sparkline(132, 30);
    cell.append(line.node);
    return (row) => {
      const keys = (verdict) => ['ingress', 'egress'].map((direction) => `${row.interface} ${direction} ${verdict}`);
      line.update(this.model.counts.line(keys('accepted')), this.model.counts.line(keys('dropped')));
    };
  }
}

function sortable(numbers) {
  return numbers === null ? [UNKNOWN, UNKNOWN] : [numbers.rate ?? 0, numbers.total];
}

function searched(row) {
  return [row.namespace, row.pod, row.interface, row.app, ...(row.ip ?? [])].join(' ');
}
