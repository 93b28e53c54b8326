// Saves what is shown as a file: CSV for spreadsheets, JSON for programs.

import { el } from './dom.js';

/** Returns two buttons. `records()` returns what is shown, as flat objects; `name()` is part of the file's name. */
export function exportButtons(name, records) {
  const button = (label, type, textOf) => {
    const node = el('button', { type: 'button', title: `Save what is shown as ${label}` }, label);
    node.addEventListener('click', () => save(`${fileName(name())}.${label.toLowerCase()}`, type, textOf(records())));
    return node;
  };
  const buttons = [button('CSV', 'text/csv', csv), button('JSON', 'application/json', (rows) => `${JSON.stringify(rows, null, 1)}\n`)];
  return el('span', { class: 'export', role: 'group', 'aria-label': 'Export' }, ...buttons);
}

function fileName(name) {
  const time = new Date().toISOString().slice(0, 19).replace(/:/g, '');
  return `calico-accountant-${name}-${time}`.replace(/[^\w.-]+/g, '-');
}

function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el('a', { href: url, download: name }).click();
  // By then, the browser has started to read it.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Formats records as CSV (RFC 4180). The columns are the fields of all records. */
export function csv(records) {
  const fields = [...new Set(records.flatMap((record) => Object.keys(record)))];
  const lines = [fields, ...records.map((record) => fields.map((field) => record[field]))];
  return lines.map((line) => `${line.map(quoted).join(',')}\r\n`).join('');
}

function quoted(value) {
  const text = Array.isArray(value) ? value.join(' ') : String(value ?? '');
  // A spreadsheet would take such a name for a formula.
  const safe = typeof value !== 'number' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
