// The page's data: the newest answers of the API, and the counters' history since the page was opened. Touches no element.

import { History } from './history.js';
import { hostKey } from './hosts.js';
import { countersOf } from './steps.js';
import { policyName } from './words.js';

/** Stands for all drops that the exporter does not keep one by one. */
const REST = { interface: '', namespace: '', pod: '', direction: '', reason: 'other', tier: null, policy: null };

export class Model {
  constructor() {
    this.status = null;
    this.workloads = [];
    this.drops = [];
    this.unknownInterfaces = { ingress: 0, egress: 0 };
    this.policies = null;
    this.hosts = [];
    this.detail = { interface: '', answer: null, missing: false, history: new History() };
    this.policyDetail = { policy: '', answer: null, missing: false, history: new History() };
    this.counts = new History();
    this.dropCounts = new History();
    this.policyCounts = new History();
    this.hostCounts = new History();
    this.byInterface = new Map();
    this.names = new Map();
    this.users = null;
    /** The drop of each key of `dropCounts`, including those of workloads that have ended. */
    this.dropNames = new Map();
    this.wantsPast = true;
    this.flows = { path: '', answer: null };
    /** Whether the exporter traces packets. */
    this.isTraced = false;
    this.allowing = { policy: '', answer: null };
  }

  /** Whether the counters of the newest answer are current. */
  isCurrent() {
    return this.status?.up === true;
  }

  /** If it is certain that Calico has no rules on the node: `absent`, or `vanished` if it had some before. Otherwise null. */
  withoutRules() {
    return !this.isCurrent() && ['absent', 'vanished'].includes(this.status?.chains) ? this.status.chains : null;
  }

  /** The workload on an interface. */
  workload(device) {
    return this.byInterface.get(device);
  }

  /** The labels and names of the policies that apply to a workload. Empty until the policies have been asked for. */
  policiesOf(device) {
    this.users ??= usersOf(this.policies ?? []);
    return this.users.get(device) ?? [];
  }

  /** The display name of a policy, given its label in the metrics. */
  policyName(policy) {
    return this.names.get(policy) ?? policy;
  }

  /** The rate of all drops; null until two reads can be compared. */
  rateOfDrops(window) {
    if (this.dropCounts.observed(window) === 0) return null;
    return this.dropCounts.sum(this.drops.map((drop) => drop.key), window) ?? 0;
  }

  /** The drops in the `window` seconds before a time, with their packets then. For now (Infinity): all drops, with all their packets. */
  dropsAt(at, window) {
    if (at === Infinity) return this.drops;
    const found = [];
    for (const key of this.dropCounts.series.keys()) {
      const rate = this.dropCounts.rate(key, window, at);
      if (rate > 0) found.push({ ...this.dropNames.get(key), key, packets: Math.round(rate * this.dropCounts.observed(window, at)) });
    }
    return found;
  }

  /** Switches to the workload on an interface. Another workload's answer and history are forgotten. */
  look(device) {
    if (this.detail.interface !== device) this.detail = { interface: device, answer: null, missing: false, history: new History() };
  }

  /** Takes the status of an answer. Returns whether the answer has counters: while the kernel cannot be read, those of the last read. */
  #takeStatus(status) {
    // A new process counts from 0, and without rules nothing was counted. Earlier counts cannot be compared.
    const isOther = this.status !== null && this.status.started !== status.started;
    if (isOther || ['absent', 'vanished'].includes(status.chains)) {
      for (const history of [this.counts, this.dropCounts, this.policyCounts, this.hostCounts, this.detail.history, this.policyDetail.history]) history.clear();
      this.wantsPast = true;
    }
    this.status = status;
    return status.time !== null && this.withoutRules() === null;
  }

  /** `GET /api/v1/workloads` */
  takeWorkloads({ status, workloads, drops, unknown_interfaces: unknown }) {
    if (!this.#takeStatus(status)) return;
    const before = this.byInterface;
    this.workloads = workloads;
    this.byInterface = new Map(workloads.map((workload) => [workload.interface, workload]));
    this.drops = keyed(drops);
    this.unknownInterfaces = unknown ?? this.unknownInterfaces;
    this.counts.add(status.time, countersOfWorkloads(workloads));
    this.#addDrops(status.time, (key) => (before.has(JSON.parse(key)[0]) ? 0 : NaN));
  }

  /** Adds the drops of one read. A drop is listed from its first packet: if its workload was there before, the count was 0 then. */
  #addDrops(time, before) {
    for (const drop of this.drops) this.dropNames.set(drop.key, drop);
    this.dropCounts.add(time, this.drops.map((drop) => [drop.key, drop.packets]), before);
    if (this.dropNames.size > 2 * this.dropCounts.series.size + 100) {
      this.dropNames = new Map([...this.dropNames].filter(([key]) => this.dropCounts.series.has(key)));
    }
  }

  /** `GET /api/v1/drops`: the drops of the last hour that the exporter has kept. */
  takePast({ status, last, reads, drops, rest }) {
    if (last === null || this.withoutRules() !== null) return;
    this.wantsPast = false;
    if (rest.length > 0) drops.push({ ...REST, packets: rest.reduce((sum, [, packets]) => sum + packets, 0), counted: rest });
    if (reads.length === 0 || this.dropCounts.times.length > 10) return;
    const past = pastOf(reads, last, drops);
    for (const drop of past.drops) this.dropNames.set(drop.key, drop);
    this.dropCounts.seed(past);
    if (this.status?.started === status.started && this.status.time !== null) this.#addDrops(this.status.time, () => 0);
  }

  /** `GET /api/v1/workloads/{interface}`; null if there is none. */
  takeDetail(answer) {
    this.detail.missing = answer === null;
    if (answer === null || !this.#takeStatus(answer.status)) return;
    this.detail.answer = answer;
    this.detail.history.add(answer.status.time, countersOf(answer.directions));
  }

  /** Switches to the flows of a path. Returns whether the path has changed. */
  lookAtFlows(path) {
    if (this.flows.path === path) return false;
    this.flows = { path, answer: null };
    return true;
  }

  /** `GET /api/v1/flows`; null if the exporter does not have it. */
  takeFlows(answer) {
    this.flows.answer = answer;
    this.isTraced = answer !== null && answer.mode !== 'off';
  }

  /** `GET /api/v1/allow?policy=…` */
  takeAllowing(policy, answer) {
    this.allowing = { policy, answer };
  }

  /** Switches to a policy. Another policy's answer and history are forgotten. */
  lookAtPolicy(policy) {
    if (this.policyDetail.policy !== policy) this.policyDetail = { policy, answer: null, missing: false, history: new History() };
  }

  /** `GET /api/v1/policies/{policy}`; null if there is none. */
  takePolicy(answer) {
    this.policyDetail.missing = answer === null;
    if (answer === null || !this.#takeStatus(answer.status)) return;
    this.policyDetail.answer = answer;
    this.policyDetail.history.add(answer.status.time, countersOfPolicy(answer));
  }

  /** `GET /api/v1/policies` */
  takePolicies({ status, policies }) {
    if (!this.#takeStatus(status)) return;
    this.policies = policies;
    this.users = null;
    this.names = new Map(policies.map((policy) => [policy.policy, policyName(policy)]));
    const counters = policies.flatMap((policy) => ['accept', 'deny', 'pass'].map((verdict) => [`${policy.policy} ${verdict}`, policy[verdict]]));
    this.policyCounts.add(status.time, counters.filter(([, packets]) => packets !== null));
  }

  /** `GET /api/v1/host-endpoints` */
  takeHosts({ status, host_endpoints: hosts }) {
    if (!this.#takeStatus(status)) return;
    this.hosts = hosts;
    this.hostCounts.add(status.time, hosts.flatMap((host) => countersOf(host.directions).map(([key, packets]) => [`${hostKey(host)} ${key}`, packets])));
  }

  /** Whether a drop has a policy for which no display name is known yet. */
  wantsNames() {
    return this.drops.some((drop) => drop.policy?.split(',').some((policy) => !this.names.has(policy)));
  }
}

/** Turns kept reads into counters, computed backwards from each drop's total. */
function pastOf(reads, last, drops) {
  const [times, gaps] = [[reads[0].from], [false]];
  /** The index of each read's end in `times`. */
  const places = reads.map(({ from, to }) => {
    if (from > times.at(-1)) (times.push(from), gaps.push(true));
    times.push(to);
    gaps.push(false);
    return times.length - 1;
  });
  if (last > times.at(-1)) (times.push(last), gaps.push(true));
  const series = new Map();
  const named = keyed(drops);
  for (const drop of named) {
    const values = new Array(times.length).fill(0);
    for (const [read, packets] of drop.counted) values[places[read]] += packets;
    let value = drop.packets;
    for (let at = times.length - 1; at >= 0; at -= 1) [values[at], value] = [value, value - values[at]];
    series.set(drop.key, values);
  }
  return { times, gaps, series, drops: named };
}

/** The labels and names of the policies that apply to each interface. */
function usersOf(policies) {
  const users = new Map();
  for (const policy of policies) {
    for (const { interface: device } of policy.workloads) {
      if (!users.has(device)) users.set(device, []);
      users.get(device).push(policy.policy, policyName(policy));
    }
  }
  return users;
}

/** Gives each drop a key, and merges drops with the same key. */
function keyed(drops) {
  const byKey = new Map();
  for (const drop of drops) {
    const key = JSON.stringify([drop.interface, drop.direction, drop.reason, drop.tier, drop.policy]);
    const same = byKey.get(key);
    if (same === undefined) byKey.set(key, { ...drop, key });
    else {
      same.packets += drop.packets;
      same.counted?.push(...drop.counted);
    }
  }
  return [...byKey.values()];
}

/** The key of a rule within its policy. */
export function ruleKey(rule) {
  return `rule ${rule.direction} ${rule.family} ${rule.rule} ${rule.action}`;
}

/** The key of an endpoint that a policy applies to. */
export function endpointKey(endpoint) {
  return `endpoint ${endpoint.interface} ${endpoint.stage ?? ''} ${endpoint.direction}`;
}

function countersOfPolicy({ policy, endpoints }) {
  const counters = policy.rules.map((rule) => [ruleKey(rule), rule.packets]);
  for (const endpoint of endpoints) {
    for (const verdict of ['accept', 'deny', 'pass', 'deny_or_pass']) {
      if (endpoint[verdict] !== null) counters.push([`${endpointKey(endpoint)} ${verdict}`, endpoint[verdict]]);
    }
  }
  return counters;
}

function countersOfWorkloads(workloads) {
  const counters = [];
  for (const workload of workloads) {
    for (const direction of ['ingress', 'egress']) {
      const sums = workload[direction];
      if (!sums) continue;
      counters.push([`${workload.interface} ${direction} accepted`, sums.accepted], [`${workload.interface} ${direction} dropped`, sums.dropped]);
    }
  }
  return counters;
}
