// The exporter's state: banners for problems that make the numbers doubtful, and a line on where the numbers come from.

import { el, reconcile, setText } from './dom.js';
import { clock, count, duration, name, some } from './format.js';

/** Shows the current banners. `failure` is why the page gets no answer, `since` when it got the last one. */
export function showBanners(place, status, failure, since) {
  reconcile(place, bannersOf(status, failure, since), (banner) => banner.id, () => {
    const [strong, text] = [el('strong'), el('span')];
    const node = el('div', {}, strong, ' ', text);
    return { node, update: (banner) => (setText(strong, banner.title), setText(text, banner.text), (node.className = `banner ${banner.level}`)) };
  });
}

function bannersOf(status, failure, since) {
  const banners = [];
  const add = (id, level, title, text) => banners.push({ id, level, title, text });
  if (failure !== null) {
    const old = since === null ? '' : ` The numbers are those of ${clock(since)}.`;
    add('page', 'error', `The exporter does not answer: ${failure.message}.`, `${old} Trying again.`.trim());
    return banners;
  }
  if (status === null) return banners;
  if (!status.up && status.chains === 'vanished') {
    add('kernel', 'error', 'Calico’s rules have vanished.', `No policy is enforced on this node. ${sentence(status.problem)}`);
  } else if (!status.up && status.chains === 'absent') {
    add('kernel', 'error', 'None of Calico’s rules is here.', sentence(status.problem));
  } else if (!status.up) {
    const old = status.time === null ? 'There are no numbers yet.' : `The numbers are those of ${clock(status.time)}.`;
    add('kernel', 'error', 'The kernel’s counters cannot be read.', `${sentence(status.problem)}${old}`);
  }
  const store = { etcd: 'etcd', kubernetes: 'The Kubernetes API server', none: 'The node’s pod log folders' }[status.datastore.type] ?? 'The datastore';
  if (!status.datastore.up) {
    const what = status.datastore.type === 'none' ? 'cannot be read' : 'is unavailable';
    add('datastore', 'warning', `${store} ${what}.`, `${sentence(status.datastore.problem)}Counts continue. Names and labels may be missing or old.`);
  } else if (!status.datastore.synced) {
    add('datastore', 'note', `${store} has not been read as a whole yet.`, 'Names may be missing for a moment.');
  }
  if (status.node_problem) {
    add('node', 'warning', 'The node’s name may be wrong.', sentence(status.node_problem));
  }
  const doubtful = (status.other_backends ?? []).filter((other) => other.evidence === null);
  if (doubtful.length > 0) {
    const others = doubtful.map((other) => backends[other.backend] ?? other.backend).join(' and ');
    add('backends', 'warning', 'These may not be the rules that Calico writes now.', `${others} holds chains of the same endpoints; BACKEND settles which one is read.`);
  }
  if (status.unrecognised_rules > 0) {
    add('rules', 'warning', `${some(status.unrecognised_rules, 'rule')} of Calico could not be understood.`, 'What depends on them is left out of the counts.');
  }
  if (status.up && !status.lock_held) {
    add('lock', 'note', 'The tables are read without the xtables lock.', 'A read during an update of the rules may be torn; mount /run/xtables.lock.');
  }
  return banners;
}

function sentence(text) {
  return text ? `${name(text, 500).replace(/[.\s]*$/, '')}. ` : '';
}

/** Shows one line on what was read, how and when. */
export function showReading(place, status, now) {
  if (status === null) {
    setText(place, 'Waiting for the first answer…');
    return;
  }
  const filled = status.tables.filter((table) => table.rules > 0);
  const tables = (filled.length > 0 ? filled : status.tables).map((table) => `${{ ipv4: 'IPv4', ipv6: 'IPv6', any: 'IPv4 and IPv6' }[table.family] ?? table.family} ${some(table.rules, 'rule')} (${backends[table.backend] ?? table.backend}, ${sources[table.source] ?? table.source})`);
  const { known, unknown, without_rules: without } = status.workloads;
  const parts = [
    `calico-accountant ${status.version}`,
    status.time === null ? 'not read yet' : `read ${duration(now - status.time)} ago`,
    ...tables,
    `${some(known + unknown, 'workload')}${unknown > 0 ? `, ${count(unknown)} without a name` : ''}${without > 0 ? `, ${count(without)} more without rules` : ''}`,
    `names from ${{ etcd: 'etcd', kubernetes: 'the Kubernetes API server', none: 'the node’s files' }[status.datastore.type] ?? status.datastore.type}`,
  ];
  setText(place, parts.join(' · '));
}

const backends = { legacy: 'iptables-legacy', nft: 'iptables-nft', nftables: 'nftables', ebpf: 'eBPF' };
const sources = { save: 'by iptables-save', kernel: 'from the kernel', file: 'from a file' };
