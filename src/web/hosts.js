// The view of host endpoints: the node's own interfaces, by stage.

import { setName } from './cells.js';
import { el, reconcile, setText, show } from './dom.js';
import { Pipeline } from './pipeline.js';
import { recordsOf } from './steps.js';
import { OVER, Toolbar, windowOf } from './toolbar.js';
import { isEbpf } from './words.js';

const STAGES = {
  normal: 'to and from the node itself',
  forward: 'forwarded by the node',
  untracked: 'untracked, before connection tracking',
  pre_dnat: 'before destination NAT',
};

export class Hosts {
  constructor({ change, href }) {
    this.href = href;
    this.toolbar = new Toolbar({ title: 'Host endpoints', choices: [OVER], records: () => this.#records(), change });
    this.hosts = [];
    this.list = el('div');
    this.none = el('p', { class: 'card none' });
    this.node = el('section', {}, this.toolbar.node, this.none, this.list);
  }

  update(model, { query }) {
    this.query = query;
    this.hosts = model.hosts;
    this.toolbar.update(query);
    show(this.none, model.hosts.length === 0);
    const notCounted = 'The eBPF dataplane does not count host endpoints. It is unknown whether this node has any.';
    setText(this.none, isEbpf(model.status) ? notCounted : 'No host endpoint has rules on this node.');
    reconcile(this.list, model.hosts, hostKey, () => this.#endpoint(model));
  }

  #records() {
    return this.hosts.flatMap((host) => recordsOf(host.directions).map((record) => ({ interface: host.interface, stage: host.stage, ...record })));
  }

  #endpoint(model) {
    const [title, stage, pipelines] = [el('bdi'), el('span', { class: 'quiet' }), el('div', { class: 'pipelines' })];
    const node = el('section', {}, el('h2', { class: 'endpoint' }, title, ' ', stage), pipelines);
    const update = (host) => {
      setName(title, host.interface === '*' ? 'All interfaces' : host.interface);
      setText(stage, STAGES[host.stage] ?? host.stage);
      reconcile(pipelines, host.directions, (direction) => direction.direction, () => {
        const pipeline = new Pipeline(this.href);
        return { node: pipeline.node, update: (direction) => pipeline.update(direction, (key) => model.hostCounts.rate(`${hostKey(host)} ${key}`, windowOf(this.query))) };
      });
    };
    return { node, update };
  }
}

/** The key of a host endpoint. */
export function hostKey(host) {
  return `${host.interface} ${host.stage}`;
}
