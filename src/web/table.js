// A table that can be searched, sorted by its columns and walked through by keys. Rows are updated in place. All rows are in the
// document, so that the browser's own search, selection and printing include them.

import { el, reconcile, setAttribute, setText, show } from './dom.js';
import { finds, termsOf } from './search.js';

/** What a column's `value` returns for an unknown number. It is sorted below all others. */
export const UNKNOWN = -1;

/** Parses `sort` of a URL: a column's id, with `-` before it for descending. */
function parseSort(text, columns) {
  const id = text.replace(/^-/, '');
  const column = columns.find((column) => column.id === id && column.value) ?? columns.find((column) => column.value);
  return { column, descending: column.id === id ? text.startsWith('-') : false };
}

/**
 * Returns the rows that a query finds (see search.js), in the order of `sort`.
 * A column is sorted by its `value(row)`. If that is an array, its elements are compared one after the other.
 */
export function select(rows, columns, { query = '', sort = '' }, searched) {
  const terms = termsOf(query);
  const found = rows.map((row) => ({ row, searched: searched(row) })).filter((each) => finds(terms, each.searched));
  const { column, descending } = parseSort(sort, columns);
  const sign = descending ? -1 : 1;
  const keyed = found.map(({ row, searched: { text } }) => ({ row, value: [column.value(row)].flat(), text }));
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
   * Columns are `{ id, label, hint, value(row), numeric, cell(td) → update(row) }`. The first one is the row's header. One without a label
   * is not shown: rows can only be sorted by it. Of a row, `keyOf` returns the key, `searched` what search.js looks at, `classOf` the
   * class, and `record` what is exported. `sorted(sort)` is called when a header is pressed.
   */
  constructor({ label, columns, keyOf, searched, classOf = () => '', record, sorted, none }) {
    Object.assign(this, { columns, keyOf, searched, classOf, record, none });
    this.shown = columns.filter((column) => column.label !== undefined);
    this.rows = [];
    this.body = el('tbody', { role: 'rowgroup' });
    this.headers = new Map(this.shown.map((column) => [column.id, this.#header(column, sorted)]));
    this.empty = el('p', { class: 'none' });
    const head = el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...this.headers.values()));
    const table = el('table', { role: 'table', class: 'list' }, el('caption', { class: 'unseen' }, label), head, this.body);
    this.node = el('div', { class: 'card' }, table, this.empty);
    this.body.addEventListener('keydown', (event) => this.#walk(event));
    this.body.addEventListener('focusin', (event) => this.#stop(event.target.closest('a')));
  }

  /** Shows the rows that the query finds, and returns their number. */
  update(rows, state) {
    const changed = this.last === undefined || this.last.query !== state.query || this.last.sort !== state.sort;
    this.last = state;
    this.rows = this.#held(select(rows, this.columns, state, this.searched), !changed);
    reconcile(this.body, this.rows, this.keyOf, () => this.#row());
    const { column, descending } = parseSort(state.sort ?? '', this.columns);
    for (const [id, header] of this.headers) {
      setAttribute(header, 'aria-sort', id === column.id ? (descending ? 'descending' : 'ascending') : null);
    }
    setText(this.empty, rows.length === 0 ? this.none() : 'Nothing here matches the search.');
    show(this.empty, this.rows.length === 0);
    this.#keepStop();
    return this.rows.length;
  }

  /** The records to export: the rows that are shown, in their order. */
  records() {
    return this.rows.map(this.record);
  }

  /** Keeps rows in their places while the pointer or the focus is in the table, so that no target jumps away. */
  #held(rows, wanted) {
    const busy = this.body.contains(document.activeElement) || (matchMedia('(hover: hover)').matches && this.body.matches(':hover'));
    if (!wanted || !busy) return rows;
    const places = new Map(this.rows.map((row, place) => [this.keyOf(row), place]));
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
      // Numbers are sorted from the largest first.
      const descending = now === null ? column.numeric : now === 'ascending';
      sorted(`${descending ? '-' : ''}${column.id}`);
    });
    header.append(button);
    return header;
  }

  #row() {
    const node = el('tr', { role: 'row' });
    const cells = this.shown.map((column, index) => {
      const attributes = { role: index === 0 ? 'rowheader' : 'cell', class: `c-${column.id}${column.numeric ? ' numeric' : ''}`, 'data-label': column.label };
      const cell = index === 0 ? el('th', { scope: 'row', ...attributes }) : el('td', attributes);
      node.append(cell);
      return column.cell(cell);
    });
    // Only one link of the table is a tab stop, see #keepStop.
    node.querySelector('a')?.setAttribute('tabindex', '-1');
    const update = (row) => {
      setAttribute(node, 'class', this.classOf(row) || null);
      cells.forEach((cell) => cell(row));
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
