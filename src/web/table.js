// A table that is searched, sorted by its columns and walked through by keys; rows are updated in place.

import { el, reconcile, setAttribute, setText, show, whenSeen } from './dom.js';
import { some } from './format.js';

/** So many rows are drawn at first, and so many more on request: what nobody scrolls to costs nothing. */
const CHUNK = 300;

/** What a column's `value` returns in place of something unknown: sorted below all else. */
export const UNKNOWN = -1;

/** `sort` of a URL: a column's id, with `-` before it for descending. */
function parseSort(text, columns) {
  const id = text.replace(/^-/, '');
  const column = columns.find((column) => column.id === id && column.value) ?? columns.find((column) => column.value);
  return { column, descending: column.id === id ? text.startsWith('-') : false };
}

/**
 * The rows that contain all words of the query, in the order of `sort`.
 * A column's `value(row)` is what it is sorted by; several values in an array are compared one after the other.
 */
export function select(rows, columns, { query = '', sort = '' }, textOf) {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== '');
  const found = words.length === 0 ? [...rows] : rows.filter((row) => {
    const text = textOf(row).toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const { column, descending } = parseSort(sort, columns);
  const sign = descending ? -1 : 1;
  const keyed = found.map((row) => ({ row, value: [column.value(row)].flat(), text: textOf(row) }));
  keyed.sort((a, b) => sign * compareAll(a.value, b.value) || collator.compare(a.text, b.text));
  return keyed.map(({ row }) => row);
}

const collator = new Intl.Collator('en', { numeric: true });

function compareAll(a, b) {
  for (let i = 0; i < a.length; i += 1) {
    const order = typeof a[i] === 'string' ? collator.compare(a[i], b[i]) : a[i] - b[i];
    if (order !== 0) return order;
  }
  return 0;
}

/** A table in a card. */
export class Table {
  /**
   * Columns are `{ id, label, hint, value(row), numeric, cell(td) → update(row) }`, the first one the row's header. `keyOf` tells rows
   * apart, `textOf` is what is searched, `classOf` a row's class. `sorted(sort)` is called when a header was pressed.
   */
  constructor({ label, columns, keyOf, textOf, classOf = () => '', sorted, none }) {
    Object.assign(this, { columns, keyOf, textOf, classOf, none });
    this.limit = CHUNK;
    this.order = [];
    this.body = el('tbody', { role: 'rowgroup' });
    this.headers = new Map(columns.map((column) => [column.id, this.#header(column, sorted)]));
    this.empty = el('p', { class: 'none' });
    this.more = el('button', { type: 'button', class: 'more' }, '');
    this.more.addEventListener('click', () => {
      this.limit += CHUNK;
      this.update(...this.last);
    });
    const head = el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...this.headers.values()));
    const table = el('table', { role: 'table', class: 'list' }, el('caption', { class: 'unseen' }, label), head, this.body);
    this.node = el('div', { class: 'card' }, table, this.empty, this.more);
    this.body.addEventListener('keydown', (event) => this.#walk(event));
    this.body.addEventListener('focusin', (event) => this.#stop(event.target.closest('a')));
  }

  /** Shows rows. */
  update(rows, state) {
    const changed = this.last === undefined || this.last[1].query !== state.query || this.last[1].sort !== state.sort;
    this.last = [rows, state];
    if (changed) this.limit = CHUNK;
    const selected = this.#held(select(rows, this.columns, state, this.textOf), !changed);
    const shown = selected.slice(0, this.limit);
    reconcile(this.body, shown, this.keyOf, () => this.#row());
    this.order = shown.map(this.keyOf);
    const { column, descending } = parseSort(state.sort ?? '', this.columns);
    for (const [id, header] of this.headers) {
      setAttribute(header, 'aria-sort', id === column.id ? (descending ? 'descending' : 'ascending') : null);
    }
    setText(this.empty, rows.length === 0 ? this.none() : 'Nothing here matches the search.');
    show(this.empty, shown.length === 0);
    show(this.more, selected.length > shown.length);
    setText(this.more, `Show more: ${some(selected.length - shown.length, 'row')} below`);
    this.#keepStop();
    return selected.length;
  }

  /** Rows keep their places while someone points at them or is among them: nobody's target may jump away. */
  #held(rows, wanted) {
    const busy = this.body.contains(document.activeElement) || (matchMedia('(hover: hover)').matches && this.body.matches(':hover'));
    if (!wanted || !busy) return rows;
    const places = new Map(this.order.map((key, place) => [key, place]));
    const place = (row) => places.get(this.keyOf(row)) ?? Infinity;
    return rows.map((row) => [place(row), row]).sort(([a], [b]) => (a === b ? 0 : a - b)).map(([, row]) => row);
  }

  #header(column, sorted) {
    const header = el('th', { role: 'columnheader', scope: 'col', class: `c-${column.id}${column.numeric ? ' numeric' : ''}`, title: column.hint });
    if (!column.value) {
      header.append(column.label);
      return header;
    }
    const button = el('button', { type: 'button' }, column.label);
    button.addEventListener('click', () => {
      const now = header.getAttribute('aria-sort');
      // Numbers are looked at from the largest on.
      const descending = now === null ? column.numeric : now === 'ascending';
      sorted(`${descending ? '-' : ''}${column.id}`);
    });
    header.append(button);
    return header;
  }

  #row() {
    const node = el('tr', { role: 'row' });
    const cells = this.columns.map((column, index) => {
      const attributes = { role: index === 0 ? 'rowheader' : 'cell', class: `c-${column.id}${column.numeric ? ' numeric' : ''}`, 'data-label': column.label };
      const cell = index === 0 ? el('th', { scope: 'row', ...attributes }) : el('td', attributes);
      node.append(cell);
      return column.cell(cell);
    });
    // Only one of the table is a tab stop, see below.
    node.querySelector('a')?.setAttribute('tabindex', '-1');
    const change = whenSeen(node, (row) => cells.forEach((cell) => cell(row)));
    const update = (row) => {
      setAttribute(node, 'class', this.classOf(row) || null);
      change(row);
    };
    return { node, update };
  }

  /** One link of the table is a tab stop; arrow keys lead to the others. */
  #keepStop() {
    if (this.stop === undefined || !this.body.contains(this.stop)) {
      this.#stop(this.body.querySelector('a'));
    }
  }

  #stop(link) {
    if (link === null || link === undefined) return;
    if (this.stop !== undefined) setAttribute(this.stop, 'tabindex', '-1');
    setAttribute(link, 'tabindex', '0');
    this.stop = link;
  }

  #walk(event) {
    const links = [...this.body.rows].map((row) => row.querySelector('a')).filter((link) => link !== null);
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1, PageDown: at + 10, PageUp: at - 10 }[event.key];
    if (to === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    links[Math.min(Math.max(to, 0), links.length - 1)].focus();
  }
}
