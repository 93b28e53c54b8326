// The page's main module: asks the API, keeps the answers in the model, and shows the view that the URL names. All state that can be
// shared is in the URL.

import { reconcile, el, setAttribute, setText, show } from './dom.js';
import { name, rate } from './format.js';
import { Drops } from './drops.js';
import { Hosts } from './hosts.js';
import { Model } from './model.js';
import { Policies } from './policies.js';
import { Policy } from './policy.js';
import { Poller } from './poll.js';
import { format, parse } from './route.js';
import { showBanners, showReading } from './status.js';
import { windowOf } from './toolbar.js';
import { Workload } from './workload.js';
import { Workloads } from './workloads.js';

const VIEWS = { drops: Drops, workloads: Workloads, workload: Workload, policies: Policies, policy: Policy, hosts: Hosts };
/** Tabs: the view, its title, and the view of a single item, which belongs to the same tab. */
const TABS = [
  ['drops', 'Dropped now', ''],
  ['workloads', 'Workloads', 'workload'],
  ['policies', 'Policies', 'policy'],
  ['hosts', 'Host endpoints', ''],
];

/** The API's path for the flows that a view shows, given the view's item. */
const FLOWS = {
  drops: () => 'api/v1/flows',
  workload: (item) => `api/v1/flows?interface=${item}`,
  policy: (item) => `api/v1/flows?policy=${item}`,
};

const byId = (id) => document.getElementById(id);
const main = byId('main');
const model = new Model();
let route = parse(location.hash);
let view = null;
let failure = null;
let answered = null;
let hostsAsked = 0;
let flowsAsked = 0;

/** Returns the URL of a view. It keeps the time span that rates are taken over. */
function href(to, item = '', query = {}) {
  return format({ view: to, item, query: { over: route.query.over, ...query } });
}

/** Changes the query of this view, without a new entry in the browser's history. */
function change(query) {
  route = { ...route, query: { ...route.query, ...query } };
  history.replaceState(null, '', format(route));
  render();
}

function questions() {
  const asked = [['api/v1/workloads', (answer) => answer !== null && model.takeWorkloads(answer)]];
  if (route.view === 'workload') {
    const device = route.item;
    model.look(device);
    asked.push([`api/v1/workloads/${encodeURIComponent(device)}`, (answer) => model.detail.interface === device && model.takeDetail(answer)]);
  }
  if (route.view === 'policy') {
    const policy = route.item;
    model.lookAtPolicy(policy);
    asked.push([`api/v1/policies/${encodeURIComponent(policy)}`, (answer) => model.policyDetail.policy === policy && model.takePolicy(answer)]);
  }
  if (route.view === 'policies' || model.wantsNames() || route.query.q?.includes('policy:')) {
    asked.push(['api/v1/policies', (answer) => answer !== null && model.takePolicies(answer)]);
  }
  const flows = FLOWS[route.view]?.(encodeURIComponent(route.item));
  if (flows !== undefined) {
    // Tracing is switched on only by a restart of the exporter. If it is off, one question a minute is enough.
    const isOther = model.lookAtFlows(flows);
    if (isOther || model.isTraced || performance.now() - flowsAsked > 60_000) {
      flowsAsked = performance.now();
      asked.push([flows, (answer) => model.flows.path === flows && model.takeFlows(answer)]);
    }
  }
  if (route.view === 'policy' && model.isTraced) {
    const policy = route.item;
    asked.push([`api/v1/allow?policy=${encodeURIComponent(policy)}`, (answer) => model.takeAllowing(policy, answer)]);
  }
  if (model.wantsPast) asked.push(['api/v1/drops', (answer) => answer !== null && model.takePast(answer)]);
  // Few nodes have host endpoints, and they rarely change.
  if (route.view === 'hosts' || performance.now() - hostsAsked > 60_000 || hostsAsked === 0) {
    hostsAsked = performance.now();
    asked.push(['api/v1/host-endpoints', (answer) => answer !== null && model.takeHosts(answer)]);
  }
  return asked;
}

const poller = new Poller({
  questions,
  took(problem) {
    failure = problem;
    if (failure === null) answered = Date.now() / 1000;
    render();
  },
});

function render() {
  if (view === null || view.of !== route.view + route.item) {
    view = new VIEWS[route.view]({ change, href });
    view.of = route.view + route.item;
    main.replaceChildren(view.node);
  }
  view.update(model, route);
  showTabs();
  showBanners(byId('banners'), model.status, failure, answered);
  showReading(byId('reading'), model.status, Date.now() / 1000);
  if (model.status !== null || failure !== null) document.body.removeAttribute('data-waiting');
  main.classList.toggle('stale', failure !== null || model.status?.up === false);
  const node = model.status?.node ?? '…';
  setText(byId('node'), name(node));
  const dropped = model.rateOfDrops(windowOf(route.query));
  const tab = TABS.find(([id, , item]) => id === route.view || item === route.view);
  document.title = `${model.withoutRules() !== null ? '(no rules) ' : dropped > 0 ? `(${rate(dropped)} dropped) ` : ''}${view.title ?? tab[1]} · ${name(node)} · calico-accountant`;
  announce(dropped);
}

function showTabs() {
  const shown = TABS.filter(([id]) => id !== 'hosts' || model.hosts.length > 0 || route.view === 'hosts');
  reconcile(byId('views'), shown, ([id]) => id, ([id, title]) => {
    const badge = el('span', { class: 'badge drop' });
    const node = el('a', {}, title, badge);
    const update = ([, , item]) => {
      const dropped = model.rateOfDrops(windowOf(route.query));
      node.href = href(id);
      setAttribute(node, 'aria-current', id === route.view || item === route.view ? 'page' : null);
      setText(badge, id === 'drops' && dropped > 0 ? rate(dropped) : '');
      show(badge, badge.textContent !== '');
    };
    return { node, update };
  });
}

let said = null;

/** Tells screen readers when drops begin and end, but not every number. */
function announce(dropped) {
  if (dropped === null || said === dropped > 0) return;
  if (said !== null || dropped > 0) setText(byId('announcement'), dropped > 0 ? 'Packets are being dropped.' : 'Nothing is being dropped any more.');
  said = dropped > 0;
}

addEventListener('hashchange', () => {
  const before = route;
  route = parse(location.hash);
  if (route.view === 'workload') model.look(route.item);
  if (route.view === 'policy') model.lookAtPolicy(route.item);
  render();
  if (before.view !== route.view || before.item !== route.item) {
    scrollTo(0, 0);
    main.querySelector('h1')?.focus({ preventScroll: true });
  }
  poller.now();
});

addEventListener('keydown', (event) => {
  const search = main.querySelector('input[type=search]');
  if (event.ctrlKey || event.metaKey || event.altKey || search === null) return;
  if (event.key === '/' && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (document.activeElement === search && event.key === 'Escape') {
    change({ q: '' });
    search.blur();
  } else if (document.activeElement === search && (event.key === 'ArrowDown' || event.key === 'Enter')) {
    event.preventDefault();
    main.querySelector('tbody a[tabindex="0"]')?.focus();
  }
});

byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});

byId('live').addEventListener('click', (event) => {
  const paused = event.currentTarget.getAttribute('aria-pressed') === 'true';
  setAttribute(event.currentTarget, 'aria-pressed', String(!paused));
  setText(event.currentTarget.firstElementChild, paused ? 'Paused' : 'Live');
  poller.pause(paused);
});

// The age of the last read grows even if no answer arrives.
setInterval(() => document.visibilityState === 'visible' && showReading(byId('reading'), model.status, Date.now() / 1000), 1000);

render();
poller.now();
