// What stands above a table: the title, a search field and choices, all of which are part of the URL.

import { el, reconcile, setAttribute, setText } from './dom.js';

/** The choice of the time that rates are taken over. */
export const OVER = {
  name: 'over',
  label: 'Rates over',
  options: [
    ['', '10 s'],
    ['60', '1 min'],
    ['all', 'since opened'],
  ],
};

/** The seconds of `over`. */
export function windowOf(query) {
  return { 60: 60, all: Infinity }[query.over] ?? 10;
}

/** A title with controls; `change(query)` is called with what is to change in the URL. */
export class Toolbar {
  constructor({ title, search = null, choices = [], change }) {
    this.title = el('h1', { tabindex: '-1' }, title);
    this.found = el('span', { class: 'found' });
    this.choices = choices.map((choice) => new Choice(choice, change));
    this.node = el('div', { class: 'toolbar' }, this.title, this.found);
    if (search !== null) {
      this.search = el('input', { type: 'search', id: 'search', placeholder: search, 'aria-label': search, 'aria-keyshortcuts': '/', autocomplete: 'off', spellcheck: 'false', maxlength: '200' });
      this.search.addEventListener('input', () => change({ q: this.search.value }));
      this.node.append(this.search);
    }
    this.node.append(...this.choices.map((choice) => choice.node));
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
