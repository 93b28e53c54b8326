// The toolbar above a table: the title, a search field and choices. What is searched and chosen is part of the URL.

import { el, reconcile, setAttribute, setText } from './dom.js';
import { exportButtons } from './export.js';

/** The choice of the time span that rates are taken over. */
export const OVER = {
  name: 'over',
  label: 'Rates over',
  options: [
    ['10', '10 s'],
    ['', '1 min'],
    ['3600', '1 h'],
  ],
};

/** The time span that rates are taken over, in seconds. */
export function windowOf(query) {
  return { 10: 10, 3600: 3600 }[query.over] ?? 60;
}

const HINT = 'ns:shop policy:web tier:default reason:invalid verdict:deny narrow, - excludes, “quotes” hold words together';

/** A title with controls. `change(query)` is called with the changes to the URL's query. `records()` returns what is exported. */
export class Toolbar {
  constructor({ title, search = false, choices = [], records = null, change }) {
    this.title = el('h1', { tabindex: '-1' }, title);
    this.found = el('span', { class: 'found' });
    this.choices = choices.map((choice) => new Choice(choice, change));
    this.node = el('div', { class: 'toolbar' }, this.title, this.found);
    if (search) {
      this.search = el('input', { type: 'search', id: 'search', placeholder: 'Search, or press /', 'aria-label': 'Search', 'aria-describedby': 'hint', 'aria-keyshortcuts': '/', autocomplete: 'off', spellcheck: 'false', maxlength: '200' });
      this.search.addEventListener('input', () => change({ q: this.search.value }));
      this.node.append(el('span', { class: 'search' }, this.search, el('span', { id: 'hint', class: 'hint' }, HINT)));
    }
    this.node.append(...this.choices.map((choice) => choice.node));
    if (records !== null) this.node.append(exportButtons(() => this.title.innerText, records));
  }

  update(query, found = '') {
    setText(this.found, found);
    if (this.search !== undefined && this.search.value !== (query.q ?? '')) this.search.value = query.q ?? '';
    for (const choice of this.choices) choice.update(query);
  }
}

class Choice {
  constructor({ name, label, options }, change) {
    this.name = name;
    this.change = change;
    this.options = options;
    this.buttons = el('span', { class: 'segments' });
    this.node = el('span', { class: 'choice', role: 'group', 'aria-label': label }, el('span', { class: 'quiet' }, label), this.buttons);
  }

  update(query) {
    const chosen = query[this.name] ?? '';
    const create = ([value, label]) => {
      const node = el('button', { type: 'button' }, label);
      node.addEventListener('click', () => this.change({ [this.name]: value }));
      return { node, update: ([, text]) => (setText(node, text), setAttribute(node, 'aria-pressed', String(this.chosen === value))) };
    };
    this.chosen = chosen;
    reconcile(this.buttons, this.options, ([value]) => value, create);
  }
}
