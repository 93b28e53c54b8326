// The view of all policies that apply on the node: how many endpoints use them, and whether they are ever hit.

import { linkCell, rateCell, textCell } from './cells.js';
import { el, setAttribute, setText } from './dom.js';
import { clock, some } from './format.js';
import { VERDICTS } from './search.js';
import { Table, UNKNOWN } from './table.js';
import { OVER, Toolbar, windowOf } from './toolbar.js';
import { kindLabel, policyName, workloadName } from './words.js';

const SHOW = {
  name: 'show',
  label: 'Show',
  options: [
    ['', 'all'],
    ['unhit', 'never hit'],
    ['denying', 'denying'],
  ],
};

export class Policies {
  constructor({ change, href }) {
    this.toolbar = new Toolbar({ title: 'Policies', search: true, choices: [SHOW, OVER], records: () => this.table.records(), change });
    const verdict = (id, label, hint, className) => ({
      id,
      label,
      hint,
      numeric: true,
      value: (row) => (row[id] === null ? [UNKNOWN, UNKNOWN] : [this.#numbers(row, id).rate ?? 0, row[id]]),
      cell: rateCell((row) => (row[id] === null ? null : this.#numbers(row, id)), className),
    });
    this.table = new Table({
      label: 'Policies with packets that their rules accepted, denied and passed on',
      columns: [
        { id: 'policy', label: 'Policy', value: policyName, cell: linkCell({ href: (row) => href('policy', row.policy), text: policyName, below: kindLabel }) },
        { id: 'tier', label: 'Tier', value: (row) => row.tier, cell: textCell((row) => row.tier) },
        { id: 'users', label: 'Used by', numeric: true, hint: 'Workloads and host endpoints of this node', value: (row) => row.workloads.length + row.host_endpoints.length, cell: textCell(usersOf) },
        verdict('accept', 'Accepted', 'Packets that its rules accepted, on all endpoints', ''),
        verdict('deny', 'Denied', 'Packets that its rules denied, on all endpoints', 'drop'),
        verdict('pass', 'Passed on', 'Packets that its rules passed on to the next tier', ''),
        { id: 'hit', label: 'Hit', hint: 'Whether any of its rules has counted a packet', value: (row) => (row.hit ? 1 : 0), cell: hitCell },
      ],
      keyOf: (row) => row.policy,
      searched,
      record: (row) => this.#record(row),
      classOf: (row) => (this.#numbers(row, 'deny').rate > 0 ? 'dropping' : ''),
      sorted: (sort) => change({ sort }),
      none: () => this.none,
    });
    this.node = el('section', {}, this.toolbar.node, this.table.node);
  }

  update(model, { query }) {
    this.model = model;
    this.window = windowOf(query);
    const wanted = { unhit: (row) => !row.hit, denying: (row) => this.#numbers(row, 'deny').rate > 0 }[query.show] ?? (() => true);
    this.none = { unhit: 'Every policy has been hit.', denying: 'No policy is denying anything now.' }[query.show] ?? 'No policy applies on this node.';
    if (model.policies === null) this.none = 'The policies have not been read yet.';
    const rows = (model.policies ?? []).filter(wanted);
    const found = this.table.update(rows, { query: query.q, sort: query.sort ?? 'policy' });
    const all = model.policies?.length ?? 0;
    const unhit = (model.policies ?? []).filter((row) => !row.hit).length;
    this.toolbar.update(query, found === all ? `${all}${unhit > 0 ? `, ${unhit} never hit` : ''}` : `${found} of ${all}`);
  }

  #record(row) {
    const { kind, namespace, name, tier, policy, hit } = row;
    const record = { namespace, name, kind, tier, policy, workloads: row.workloads.length, host_endpoints: row.host_endpoints.length, hit };
    for (const verdict of ['accept', 'deny', 'pass']) {
      record[verdict] = row[verdict];
      record[`${verdict}_per_second`] = this.#numbers(row, verdict).rate;
    }
    return record;
  }

  #numbers(row, verdict) {
    return { rate: this.model.policyCounts.rate(`${row.policy} ${verdict}`, this.window), total: row[verdict] };
  }
}

/** `3 workloads, 1 host endpoint`. */
function usersOf(policy) {
  const parts = [
    policy.workloads.length > 0 ? some(policy.workloads.length, 'workload') : '',
    policy.host_endpoints.length > 0 ? some(policy.host_endpoints.length, 'host endpoint') : '',
  ].filter((part) => part !== '');
  return parts.length > 0 ? parts.join(', ') : 'no endpoint here';
}

function hitCell(cell) {
  const badge = el('span', { class: 'badge' });
  cell.append(badge);
  return (row) => {
    setText(badge, row.hit ? 'hit' : 'never hit');
    setAttribute(badge, 'class', row.hit ? 'badge' : 'badge never');
    setAttribute(badge, 'title', row.hit || !row.since ? null : `Watched since ${clock(row.since)}, and not hit before, since Felix wrote its rules`);
  };
}

/** The texts of a policy that are searched, made once for each answer. */
const known = new WeakMap();
function searched(row) {
  if (!known.has(row)) {
    const users = row.workloads.map(workloadName);
    known.set(row, {
      text: [row.policy, policyName(row), kindLabel(row), row.tier, row.hit ? '' : 'never hit', ...users, ...row.host_endpoints].join(' '),
      ns: [row.namespace ?? ''],
      tier: [row.tier],
      policy: [row.policy, policyName(row)],
      verdict: ['accept', 'deny', 'pass'].filter((verdict) => row[verdict] > 0).flatMap((verdict) => VERDICTS[verdict]),
    });
  }
  return known.get(row);
}
