// The search of tables: words and "phrases", whole addresses, and `field:value`. A `-` before a term excludes what it finds. Pure.

import { address, isReason } from './words.js';

const equal = (values, wanted) => values.includes(wanted);
const contains = (values, wanted) => values.some((value) => value.includes(wanted));

/** How a row's values of a field are compared with the wanted one. All are in lower case. */
const FIELDS = {
  ns: equal,
  tier: equal,
  policy: contains,
  reason: (values, wanted) => (isReason(wanted) ? equal : contains)(values, wanted),
  verdict: (values, wanted) => values.some((value) => value.startsWith(wanted)),
};

/** The words that find a verdict. */
export const VERDICTS = { accept: ['accept', 'accepted'], deny: ['deny', 'denied', 'dropped'], pass: ['pass', 'passed'] };

/** Returns the terms of a query: `{ excludes, field, wanted, isAddress }`. */
export function termsOf(query) {
  const terms = [];
  for (const [, minus, field = '', quoted, bare = ''] of query.toLowerCase().matchAll(/(-?)(?:([a-z]+):)?(?:"([^"]*)"?|([^\s"]+))/g)) {
    const isField = Object.hasOwn(FIELDS, field);
    // A colon may also be part of a name or an address.
    const text = (isField || field === '' ? '' : `${field}:`) + (quoted ?? bare);
    const whole = isField ? null : address(text.replace(/\/(32|128)$/, ''));
    // An incomplete term (`ns:`) is ignored: it matches everything while the user types.
    const isBegun = text === '' || text === '-' || Object.hasOwn(FIELDS, text.slice(0, -1)) && text.endsWith(':');
    if (!isBegun) terms.push({ excludes: minus === '-', field: isField ? field : null, wanted: whole ?? text, isAddress: whole !== null });
  }
  return terms;
}

/**
 * Whether the terms find a row, `{ text, ns, tier, policy, reason, verdict }`: its text, and lists of values. All except the text may be
 * missing.
 */
export function finds(terms, row) {
  const [text, lists] = [row.text.toLowerCase(), {}];
  const valuesOf = (field) => (lists[field] ??= (row[field] ?? []).map((value) => String(value).toLowerCase()));
  return terms.every(({ excludes, field, wanted, isAddress }) => {
    const found = field !== null ? FIELDS[field](valuesOf(field), wanted) : isAddress ? holdsAddress(text, wanted) : text.includes(wanted);
    return found !== excludes;
  });
}

/** Whether a text holds an address as a whole: `10.0.0.1` is not in `10.0.0.10`. */
function holdsAddress(text, wanted) {
  const goesOn = (c) => c !== undefined && /[0-9a-f.:]/.test(c);
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
    if (!goesOn(text[at - 1]) && !goesOn(text[at + wanted.length])) return true;
  }
  return false;
}

/** `field:value` as it is typed. */
export function term(field, value) {
  return /[\s"]/.test(value) ? `${field}:"${value.replaceAll('"', ' ')}"` : `${field}:${value}`;
}
