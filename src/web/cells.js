// Cells that several tables use.

import { el, reconcile, setAttribute, setText, show } from './dom.js';
import { count, name, rate, wholeName } from './format.js';
import { addresses, workloadName } from './words.js';

/** Sets an element's text to a name that comes from outside. */
export function setName(element, text) {
  setText(element, name(text));
  setAttribute(element, 'title', wholeName(text));
}

/** A rate above its total. `of(row)` returns `{ rate, total, exact }`, or null if there is no such count; then `none(row)` is shown. */
export function rateCell(of, className = '', none = () => '–') {
  return (cell) => {
    const now = el('span', { class: 'rate' });
    const total = el('span', { class: 'total' });
    cell.append(now, total);
    return (row) => {
      const numbers = of(row);
      setText(now, numbers === null ? none(row) : rate(numbers.rate));
      setText(total, numbers === null ? '' : `${numbers.exact === false ? '≥ ' : ''}${count(numbers.total)}`);
      const state = numbers === null || numbers.total === 0 ? 'zero' : numbers.rate > 0 ? 'active' : 'still';
      setAttribute(now, 'class', `rate ${className} ${state}`);
    };
  };
}

/** Plain text. */
export function textCell(of) {
  return (cell) => {
    const text = el('bdi');
    cell.append(text);
    return (row) => setName(text, of(row));
  };
}

/** A link with a second line below it: `href(row)`, `text(row)`, `below(row)`. */
export function linkCell({ href, text, below = () => '' }) {
  return (cell) => {
    const link = el('a', { href: '#' }, el('bdi'));
    const second = el('span', { class: 'below' }, el('bdi'));
    cell.append(link, second);
    return (row) => {
      setAttribute(link, 'href', href(row));
      setName(link.firstChild, text(row));
      setName(second.firstChild, below(row));
      show(second, below(row) !== '');
    };
  };
}

/** A link, or a list of links that opens. `of(row)` returns `{ text, href, list, below }`; items of the list have `text` and `href`. */
export function linkOrListCell(of) {
  return (cell) => {
    const link = el('a', {}, el('bdi'));
    const [summary, items] = [el('summary'), el('ul')];
    const details = el('details', {}, summary, items);
    const second = el('span', { class: 'below' }, el('bdi'));
    cell.append(link, details, second);
    return (row) => {
      const { text, href = null, list = [], below = '' } = of(row);
      show(link, list.length === 0);
      show(details, list.length > 0);
      setAttribute(link, 'href', href);
      setName(link.firstChild, list.length === 0 ? text : '');
      setText(summary, list.length > 0 ? text : '');
      reconcile(items, list, (item) => item.href, () => {
        const a = el('a', {}, el('bdi'));
        return { node: el('li', {}, a), update: (item) => (setAttribute(a, 'href', item.href), setName(a.firstChild, item.text)) };
      });
      setName(second.firstChild, below);
      show(second, below !== '');
    };
  };
}

/** A workload's name above its interface, addresses and app. `workload(row)` returns the workload, `href(row)` the link. */
export function workloadCell(workload, href) {
  const below = (row) => {
    const { pod, interface: device, app, known } = workload(row);
    const parts = [pod ? device : '', addresses(workload(row)).join(' '), app ? `app ${app}` : '', known === false ? 'name unknown' : ''];
    return parts.filter((part) => part !== '').join(' · ');
  };
  return linkCell({ href, text: (row) => workloadName(workload(row)), below });
}
