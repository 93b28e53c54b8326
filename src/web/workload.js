// The view of one workload: what is known of it, and the pipelines that its packets take.

import { setName } from './cells.js';
import { el, reconcile, setAttribute, setText, show } from './dom.js';
import { Pipeline } from './pipeline.js';
import { recordsOf } from './steps.js';
import { OVER, Toolbar, windowOf } from './toolbar.js';
import { name } from './format.js';
import { Witnesses } from './witnesses.js';
import { addresses, dashboard, isEbpf, workloadName } from './words.js';

export class Workload {
  constructor({ change, href }) {
    this.href = href;
    this.toolbar = new Toolbar({ title: '…', choices: [OVER], records: () => recordsOf(this.directions), change });
    this.directions = [];
    this.back = el('a', { class: 'back', href: href('workloads') }, 'Workloads');
    this.facts = el('dl', { class: 'facts' });
    this.pipelines = el('div', { class: 'pipelines' });
    this.missing = el('p', { class: 'card none' });
    this.witnesses = new Witnesses({ href, whose: false });
    this.elsewhere = el('a', { class: 'elsewhere', rel: 'noreferrer' }, 'This pod in Grafana');
    this.node = el('section', {}, this.back, this.elsewhere, this.toolbar.node, this.facts, this.missing, this.pipelines, this.witnesses.node);
  }

  update(model, { item, query }) {
    const { answer, history } = model.detail;
    const workload = answer?.workload ?? model.workload(item) ?? { interface: item };
    setName(this.toolbar.title, workloadName(workload));
    this.title = name(workloadName(workload));
    this.toolbar.update(query);
    this.back.href = this.href('workloads');
    const { namespace, pod } = workload;
    const link = pod ? dashboard(model.status, 'workload', { namespace, pod }) : null;
    setAttribute(this.elsewhere, 'href', link);
    show(this.elsewhere, link !== null);
    reconcile(this.facts, factsOf(workload), ([term]) => term, () => {
      const [term, text] = [el('dt'), el('dd', {}, el('bdi'))];
      return { node: el('div', {}, term, text), update: ([label, value]) => (setText(term, label), setName(text.firstChild, value)) };
    });
    show(this.missing, model.detail.missing);
    setText(this.missing, 'There is no workload on this interface now. It may have ended; its counts end with it.');
    this.directions = answer?.directions ?? [];
    this.witnesses.update(model.flows.answer);
    this.rateOf = (key) => history.rate(key, windowOf(query));
    reconcile(this.pipelines, this.directions, (direction) => direction.direction, () => {
      const pipeline = new Pipeline(this.href);
      return { node: pipeline.node, update: (direction) => pipeline.update(direction, this.rateOf, isEbpf(model.status)) };
    });
  }
}

function factsOf(workload) {
  const facts = [
    ['Interface', workload.interface],
    ['Address', addresses(workload).join(', ')],
    ['App', workload.app],
    ['Service account', workload.service_account],
    ['Orchestrator', workload.orchestrator],
    ['Name', workload.known === false ? 'unknown: neither the datastore nor the node’s files know this interface' : ''],
  ];
  return facts.filter(([, value]) => value);
}
