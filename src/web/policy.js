// The view of one policy: what it decided for each workload and host endpoint, and what each of its rules counted.

import { linkCell, rateCell, setName, textCell } from './cells.js';
import { el, reconcile, setAttribute, setText, show } from './dom.js';
import { clock, name } from './format.js';
import { endpointKey, ruleKey } from './model.js';
import { VERDICTS } from './search.js';
import { Table, UNKNOWN } from './table.js';
import { OVER, Toolbar, windowOf } from './toolbar.js';
import { Witnesses } from './witnesses.js';
import { dashboard, directionLabel, kindLabel, policyName, workloadName } from './words.js';

const COLUMNS = [
  ['accept', 'Accepted', ''],
  ['deny', 'Denied', 'drop'],
  ['pass', 'Passed on', ''],
];

export class Policy {
  constructor({ change, href }) {
    this.href = href;
    this.users = this.#usersTable(change);
    this.rules = this.#rulesTable();
    this.toolbar = new Toolbar({ title: '…', search: true, choices: [OVER], records: () => [...this.users.records(), ...this.rules.records()], change });
    this.back = el('a', { class: 'back', href: href('policies') }, 'Policies');
    this.facts = el('dl', { class: 'facts' });
    this.missing = el('p', { class: 'card none' });
    this.tables = el('div', { class: 'halves' });
    this.tables.append(el('section', {}, el('h2', {}, 'Decided for'), this.users.node), el('section', {}, el('h2', {}, 'Rules'), this.rules.node));
    this.witnesses = new Witnesses({ href, whose: true });
    this.draft = el('pre', { tabindex: '0' });
    this.allowing = el('details', { class: 'allowing' }, el('summary', {}, 'NetworkPolicies that would accept what it was seen to accept'), this.draft);
    this.elsewhere = el('a', { class: 'elsewhere', rel: 'noreferrer' }, 'This policy in Grafana');
    this.node = el('section', {}, this.back, this.elsewhere, this.toolbar.node, this.facts, this.missing, this.tables, this.witnesses.node, this.allowing);
  }

  update(model, { item, query }) {
    const { answer, missing, history } = model.policyDetail;
    Object.assign(this, { history, window: windowOf(query) });
    const policy = answer?.policy ?? model.policies?.find((each) => each.policy === item) ?? { policy: item };
    setName(this.toolbar.title, policyName(policy));
    this.title = name(policyName(policy));
    this.back.href = this.href('policies');
    const link = dashboard(model.status, 'policies', { policy: item });
    setAttribute(this.elsewhere, 'href', link);
    show(this.elsewhere, link !== null);
    show(this.missing, missing || answer === null);
    setText(this.missing, missing ? 'No such policy applies on this node now.' : 'The policy has not been read yet.');
    show(this.tables, answer !== null && !missing);
    reconcile(this.facts, answer === null ? [] : factsOf(policy), ([term]) => term, () => {
      const [term, text] = [el('dt'), el('dd', {}, el('bdi'))];
      return { node: el('div', {}, term, text), update: ([label, value]) => (setText(term, label), setName(text.firstChild, value)) };
    });
    const found = this.users.update(answer?.endpoints ?? [], { query: query.q, sort: query.sort ?? '-deny' });
    this.rules.update(answer?.policy.rules ?? [], {});
    this.witnesses.update(model.flows.answer);
    const draft = model.allowing.policy === item ? (model.allowing.answer?.network_policies ?? '') : '';
    show(this.allowing, draft !== '');
    setText(this.draft, draft);
    const all = answer?.endpoints.length ?? 0;
    this.toolbar.update(query, found === all ? '' : `${found} of ${all}`);
  }

  #numbers(key, total, exact = true) {
    return total === null ? null : { rate: this.history.rate(key, this.window), total, exact };
  }

  /** The numbers of a verdict for an endpoint; null if the policy has no such verdict, or the count is unknown. */
  #decided(row, verdict) {
    return this.#numbers(`${endpointKey(row)} ${verdict}`, row[verdict], row.exact);
  }

  #usersTable(change) {
    const { href } = this;
    const verdict = ([id, label, className]) => ({
      id,
      label,
      numeric: true,
      value: (row) => (row[id] === null ? [UNKNOWN, UNKNOWN] : [this.#decided(row, id).rate ?? 0, row[id]]),
      cell: rateCell((row) => this.#decided(row, id), className, (row) => (row.can.includes(id) ? '?' : '–')),
    });
    const below = (row) => {
      const merged = row.deny_or_pass > 0 ? `${row.deny_or_pass} denied or passed on, which is not known` : '';
      return [row.stage ? `host endpoint, ${row.stage}` : row.pod ? row.interface : '', merged].filter(Boolean).join(' · ');
    };
    return new Table({
      label: 'Workloads and host endpoints with what the policy decided for them',
      columns: [
        { id: 'workload', label: 'Workload', value: workloadName, cell: linkCell({ href: (row) => (row.stage ? href('hosts') : href('workload', row.interface)), text: workloadName, below }) },
        { id: 'direction', label: 'Direction', value: (row) => row.direction, cell: textCell((row) => directionLabel(row.direction)) },
        ...COLUMNS.map(verdict),
      ],
      keyOf: endpointKey,
      searched: (row) => ({
        text: `${workloadName(row)} ${row.interface} ${directionLabel(row.direction)}`,
        ns: [row.namespace],
        verdict: COLUMNS.filter(([id]) => row[id] > 0).flatMap(([id]) => VERDICTS[id]),
      }),
      classOf: (row) => (this.#decided(row, 'deny')?.rate > 0 ? 'dropping' : ''),
      record: (row) => {
        const { namespace, pod, interface: device, stage, direction, exact, deny_or_pass: merged } = row;
        const decided = COLUMNS.flatMap(([id]) => [[id, row[id]], [`${id}_per_second`, this.#decided(row, id)?.rate ?? null]]);
        return { namespace, pod, interface: device, stage, direction, ...Object.fromEntries(decided), deny_or_pass: merged, exact };
      },
      sorted: (sort) => change({ sort }),
      none: () => 'It applies to no endpoint of this node.',
    });
  }

  #rulesTable() {
    const order = (rule) => [rule.direction === 'ingress' ? 0 : 1, rule.rule, rule.family];
    const numbers = (rule) => this.#numbers(ruleKey(rule), rule.packets);
    return new Table({
      label: 'Rules with the packets that matched them, on all endpoints',
      columns: [
        { id: 'rule', label: 'Rule', hint: 'Its place in the policy, from 0', value: order, cell: textCell((rule) => `${directionLabel(rule.direction)} ${rule.rule}`) },
        { id: 'action', label: 'Action', cell: textCell((rule) => rule.action) },
        { id: 'matches', label: 'Matches', hint: 'What packets it is for, as the table says it', cell: textCell((rule) => rule.matches ?? '–') },
        { id: 'family', label: 'Family', cell: textCell((rule) => ({ ipv4: 'IPv4', ipv6: 'IPv6', any: 'both' })[rule.family] ?? rule.family) },
        { id: 'packets', label: 'Packets', hint: 'Packets per second that matched it, and in all, on all endpoints', numeric: true, cell: rateCell(numbers) },
      ],
      keyOf: ruleKey,
      searched: (rule) => ({ text: `${rule.direction} ${rule.rule} ${rule.action} ${rule.matches ?? ''}` }),
      record: (rule) => ({ ...rule, packets_per_second: numbers(rule).rate }),
      sorted: () => {},
      none: () => 'None of its rules has a counter of its own here.',
    });
  }
}

function factsOf(policy) {
  const since = policy.since ? ` (watched since ${clock(policy.since)})` : '';
  const facts = [
    ['Kind', kindLabel(policy)],
    ['Tier', policy.tier],
    ['In metrics', policy.policy],
    ['Hit', policy.hit ? 'yes' : `never, since Felix wrote its rules${since}`],
  ];
  return facts.filter(([, value]) => value);
}
