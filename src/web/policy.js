// One policy: its rules with their counts, and the workloads and host endpoints that it applies to.

import { countCell, linkCell, setName, textCell } from './cells.js';
import { el, reconcile, setText, show } from './dom.js';
import { name } from './format.js';
import { Table } from './table.js';
import { Toolbar } from './toolbar.js';
import { directionLabel, kindLabel, policyName, workloadName } from './words.js';

export class Policy {
  constructor({ change, href }) {
    this.href = href;
    this.toolbar = new Toolbar({ title: '…', search: 'Search, or press /', change });
    this.back = el('a', { class: 'back', href: href('policies') }, 'Policies');
    this.facts = el('dl', { class: 'facts' });
    this.missing = el('p', { class: 'card none' });
    this.rules = rulesTable();
    this.users = usersTable(href, change);
    this.tables = el('div', { class: 'halves' });
    this.tables.append(el('section', {}, el('h2', {}, 'Rules'), this.rules.node), el('section', {}, el('h2', {}, 'Applies to'), this.users.node));
    this.node = el('section', {}, this.back, this.toolbar.node, this.facts, this.missing, this.tables);
  }

  update(model, { item, query }) {
    const policy = model.policies?.find((each) => each.policy === item);
    setName(this.toolbar.title, policy === undefined ? item : policyName(policy));
    this.title = name(policy === undefined ? item : policyName(policy));
    this.toolbar.update(query);
    this.back.href = this.href('policies');
    show(this.missing, policy === undefined);
    setText(this.missing, model.policies === null ? 'The policies have not been read yet.' : 'No such policy applies on this node now.');
    show(this.tables, policy !== undefined);
    reconcile(this.facts, policy === undefined ? [] : factsOf(policy), ([term]) => term, () => {
      const [term, text] = [el('dt'), el('dd', {}, el('bdi'))];
      return { node: el('div', {}, term, text), update: ([label, value]) => (setText(term, label), setName(text.firstChild, value)) };
    });
    if (policy === undefined) return;
    this.rules.update(policy.rules, {});
    const hosts = policy.host_endpoints.map((each) => ({ interface: each, isHost: true, directions: [] }));
    this.users.update([...policy.workloads, ...hosts], { query: query.q, sort: query.sort });
  }
}

function factsOf(policy) {
  const facts = [
    ['Kind', kindLabel(policy)],
    ['Tier', policy.tier],
    ['In metrics', policy.policy],
    ['Hit', policy.hit ? 'yes' : 'never since the kernel counts'],
  ];
  return facts.filter(([, value]) => value);
}

function rulesTable() {
  const order = (rule) => [rule.direction === 'ingress' ? 0 : 1, rule.rule, rule.family];
  return new Table({
    label: 'Rules with the packets that matched them, on all endpoints',
    columns: [
      { id: 'rule', label: 'Rule', hint: 'Its place in the policy, from 0', value: order, cell: textCell((rule) => `${directionLabel(rule.direction)} ${rule.rule}`) },
      { id: 'action', label: 'Action', cell: textCell((rule) => rule.action) },
      { id: 'family', label: 'Family', cell: textCell((rule) => ({ ipv4: 'IPv4', ipv6: 'IPv6', any: 'both' })[rule.family] ?? rule.family) },
      { id: 'packets', label: 'Packets', numeric: true, cell: countCell((rule) => rule.packets) },
    ],
    keyOf: (rule) => `${rule.direction} ${rule.family} ${rule.rule} ${rule.action}`,
    textOf: (rule) => `${rule.direction} ${rule.rule} ${rule.action}`,
    sorted: () => {},
    none: () => 'None of its rules has a counter of its own here.',
  });
}

function usersTable(href, change) {
  return new Table({
    label: 'Workloads and host endpoints that the policy applies to',
    columns: [
      {
        id: 'workload',
        label: 'Workload',
        value: workloadName,
        cell: linkCell({
          href: (user) => (user.isHost ? href('hosts') : href('workload', user.interface)),
          text: (user) => workloadName(user),
          below: (user) => (user.isHost ? 'host endpoint' : user.pod ? user.interface : ''),
        }),
      },
      { id: 'directions', label: 'Directions', cell: textCell((user) => user.directions.map(directionLabel).join(', ') || '–') },
    ],
    keyOf: (user) => `${user.isHost ? 'host' : 'workload'} ${user.interface}`,
    textOf: (user) => `${user.namespace ?? ''} ${user.pod ?? ''} ${user.interface}`,
    sorted: (sort) => change({ sort }),
    none: () => 'Nobody on this node.',
  });
}
