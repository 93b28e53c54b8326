// What is known: the newest answers of the API, and the counters' history since the page was opened. Touches no element.

import { History } from './history.js';
import { hostKey } from './hosts.js';
import { countersOf } from './steps.js';
import { policyName } from './words.js';

export class Model {
  constructor() {
    this.status = null;
    this.workloads = [];
    this.drops = [];
    this.unknownInterfaces = { ingress: 0, egress: 0 };
    this.policies = null;
    this.hosts = [];
    this.detail = { interface: '', answer: null, missing: false, history: new History() };
    this.counts = new History();
    this.dropCounts = new History();
    this.policyCounts = new History();
    this.hostCounts = new History();
    this.byInterface = new Map();
    this.names = new Map();
  }

  /** Whether the newest answer comes with counters of now. */
  isCurrent() {
    return this.status?.up === true;
  }

  /** Whether it is certain that Calico has no rules on the node: `absent`, or `vanished` where there were some; else null. */
  withoutRules() {
    return !this.isCurrent() && ['absent', 'vanished'].includes(this.status?.chains) ? this.status.chains : null;
  }

  /** The workload on an interface. */
  workload(device) {
    return this.byInterface.get(device);
  }

  /** A policy's name as people write it, by its label in the metrics. */
  policyName(policy) {
    return this.names.get(policy) ?? policy;
  }

  /** All drops, per second. */
  rateOfDrops(window) {
    if (this.dropCounts.times.length < 2) return null;
    return this.dropCounts.sum(this.drops.map((drop) => drop.key), window) ?? 0;
  }

  /** Another workload is looked at. */
  look(device) {
    if (this.detail.interface !== device) this.detail = { interface: device, answer: null, missing: false, history: new History() };
  }

  /** What every answer carries. Returns whether there are counters: while the kernel cannot be read, those of the last read. */
  #takeStatus(status) {
    // Another process counts from 0, and without rules nobody counted: nothing of before can be compared.
    const isOther = this.status !== null && this.status.started !== status.started;
    if (isOther || ['absent', 'vanished'].includes(status.chains)) {
      for (const history of [this.counts, this.dropCounts, this.policyCounts, this.hostCounts, this.detail.history]) history.clear();
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
    const entries = this.drops.map((drop) => [drop.key, drop.packets]);
    // A drop is listed from its first packet on: had the workload been there without it, it was 0.
    this.dropCounts.add(status.time, entries, (key) => (before.has(JSON.parse(key)[0]) ? 0 : NaN));
  }

  /** `GET /api/v1/workloads/{interface}`; null if there is none. */
  takeDetail(answer) {
    this.detail.missing = answer === null;
    if (answer === null || !this.#takeStatus(answer.status)) return;
    this.detail.answer = answer;
    this.detail.history.add(answer.status.time, countersOf(answer.directions));
  }

  /** `GET /api/v1/policies` */
  takePolicies({ status, policies }) {
    if (!this.#takeStatus(status)) return;
    this.policies = policies;
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

  /** Whether a drop names a policy whose name is not known yet. */
  wantsNames() {
    return this.drops.some((drop) => drop.policy?.split(',').some((policy) => !this.names.has(policy)));
  }
}

/** Drops with a key each; those that differ in nothing are one. */
function keyed(drops) {
  const byKey = new Map();
  for (const drop of drops) {
    const key = JSON.stringify([drop.interface, drop.direction, drop.reason, drop.tier, drop.policy]);
    const same = byKey.get(key);
    if (same === undefined) byKey.set(key, { ...drop, key });
    else same.packets += drop.packets;
  }
  return [...byKey.values()];
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
