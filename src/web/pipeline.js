// Shows one direction of an endpoint: where its packets end, and what each step decided.

import { setName } from './cells.js';
import { el, reconcile, setAttribute, setText, show } from './dom.js';
import { count, rate } from './format.js';
import { endsOf, IMPOSSIBLE, rowsOf, UNKNOWN } from './steps.js';
import { directionLabel } from './words.js';

const COLUMNS = [
  ['accept', 'Accepted'],
  ['deny', 'Dropped'],
  ['pass', 'Passed on'],
];

/** `update(direction, rateOf)`: `rateOf(key)` returns the rate of a counter (see countersOf). */
export class Pipeline {
  constructor(href) {
    this.href = href;
    this.title = el('h2');
    this.open = el('p', { class: 'quiet' });
    this.bar = el('div', { class: 'ends', 'aria-hidden': 'true' });
    this.legend = el('ul', { class: 'legend', 'aria-label': 'Where packets end' });
    this.caption = el('caption', { class: 'unseen' });
    this.body = el('tbody');
    const heads = COLUMNS.map(([, label]) => el('th', { scope: 'col', class: 'numeric' }, label));
    const head = el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'Step'), ...heads));
    this.notes = el('ul', { class: 'notes' });
    const table = el('table', { class: 'pipeline' }, this.caption, head, this.body);
    this.node = el('section', { class: 'card direction' }, this.title, this.open, this.bar, this.legend, table, this.notes);
  }

  update(direction, rateOf, isEbpf = false) {
    const label = directionLabel(direction.direction);
    setText(this.title, label);
    setText(this.caption, `${label}: what each step decided, in the order of evaluation`);
    const established = direction.established ?? null;
    setText(this.open, established === null ? '' : `${count(established)} packets of open connections went through before any policy was asked.`);
    show(this.open, established !== null);
    this.#ends(endsOf(direction));
    this.rateOf = (row, verdict) => rateOf(`${direction.direction} ${row.key} ${verdict}`);
    const rows = rowsOf(direction);
    reconcile(this.body, rows, (row) => `${row.kind} ${row.key}`, (row) => this.#row(row));
    reconcile(this.notes, notesOf(rows, isEbpf), (note) => note, (note) => ({ node: el('li', {}, note), update() {} }));
  }

  #ends(ends) {
    const all = ends.reduce((sum, end) => sum + end.packets, 0);
    show(this.bar, all > 0);
    reconcile(this.bar, ends, (end) => end.id, (end) => {
      const node = el('span', { class: end.state });
      return { node, update: ({ packets }) => (node.style.flexGrow = String(packets)) };
    });
    const items = all > 0 ? ends : [{ id: 'none', label: 'Not one packet has come this way yet', state: 'none', packets: null }];
    reconcile(this.legend, items, (end) => end.id, (end) => {
      const [number, text] = [el('b'), el('span')];
      const node = el('li', { class: end.state }, number, ' ', text);
      return { node, update: (now) => (setText(number, now.packets === null ? '' : count(now.packets)), setText(text, now.label)) };
    });
  }

  #row({ kind, policy }) {
    if (kind === 'head' || kind === 'group') return this.#heading(kind);
    const place = el('span', { class: 'place', 'aria-hidden': 'true' });
    const name = policy === undefined ? el('bdi') : el('a', { href: this.href('policy', policy) }, el('bdi'));
    const note = el('span', { class: 'below' });
    const header = el('th', { scope: 'row' }, el('div', { class: 'step' }, place, el('span', { class: 'what' }, name, note)));
    const cells = COLUMNS.map(([verdict]) => ({ verdict, ...cell() }));
    const node = el('tr', { class: kind }, header, ...cells.map((each) => each.node));
    const update = (row) => {
      setText(place, row.place === undefined ? '' : String(row.place));
      setName(name.firstElementChild ?? name, row.title);
      setText(note, row.note);
      show(note, row.note !== '');
      setAttribute(header, 'title', row.hint ?? null);
      for (const each of cells) this.#verdict(each, row);
      setAttribute(node, 'data-dropping', this.rateOf(row, 'deny') > 0 ? '' : null);
    };
    return { node, update };
  }

  /** A number in its column. A number of denies or passes spans both columns. */
  #verdict({ verdict, node, number, small }, row) {
    const isMerged = row.deny_or_pass !== null;
    show(node, !(isMerged && verdict === 'pass'));
    setAttribute(node, 'colspan', isMerged && verdict === 'deny' ? '2' : null);
    const id = isMerged && verdict === 'deny' ? 'deny_or_pass' : verdict;
    const value = row[id];
    const state = value === IMPOSSIBLE || value === UNKNOWN ? value : value === 0 ? 'zero' : 'counted';
    setAttribute(node, 'class', `numeric ${id} ${state}`);
    setAttribute(node, 'title', { [IMPOSSIBLE]: 'It has no rule that does this', [UNKNOWN]: 'Unknown: the counters do not show it' }[value] ?? null);
    setText(number, { [IMPOSSIBLE]: '·', [UNKNOWN]: '?' }[value] ?? `${row.isExact === false ? '≥ ' : ''}${count(value)}`);
    const now = typeof value === 'number' ? this.rateOf(row, id) : null;
    const words = id === 'deny_or_pass' ? 'dropped or passed on' : '';
    setText(small, [words, now > 0 ? rate(now) : ''].filter((part) => part !== '').join(' · '));
  }

  #heading(kind) {
    const [title, note] = [el('bdi'), el('span', { class: 'quiet' })];
    const node = el('tr', { class: kind }, el('th', { scope: 'rowgroup', colspan: '4' }, title, ' ', note));
    return { node, update: (row) => (setName(title, row.title), setText(note, row.note)) };
  }
}

function cell() {
  const [number, small] = [el('span', { class: 'number' }), el('span', { class: 'total' })];
  return { node: el('td', { class: 'numeric' }, number, small), number, small };
}

/** Explains why some numbers are missing, each reason once. */
function notesOf(rows, isEbpf) {
  const has = (test) => rows.some(test);
  const verdict = (row) => [row.accept, row.deny, row.pass];
  const shared = has((row) => row.kind === 'undivided');
  return [
    isEbpf &&
      'The eBPF dataplane counts a policy’s packets for the whole node, and each workload’s for all of its policies. A number here is what is certain of this workload; what the policy did on the node is on its own page. Packets of open connections are not counted.',
    isEbpf && shared &&
      'Where more than one policy may have accepted, its row shows what is certain (≥), and “one of …” the rest.',
    !isEbpf && shared &&
      'Workloads share the chain of a policy group, and the kernel counts a policy’s packets there for all of them together. Where more than one policy may have decided, its row shows what is certain (≥), and “one of the group” the rest.',
    has((row) => typeof row.deny_or_pass === 'number') &&
      'Dropped or passed on: several policies of the tier can do both, and the kernel counts only that neither a later policy was asked nor the packet accepted.',
    has((row) => verdict(row).includes(UNKNOWN)) && '? is unknown: the counters do not show it.',
  ].filter((note) => note !== false);
}
