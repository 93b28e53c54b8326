// What the exporter's terms mean, in words for people. Pure.

/** Why packets are dropped: `reason` of the API. */
const reasons = {
  policy: ['Denied by policy', 'A rule of a policy denies them.'],
  no_policy: ['No policy matched', 'Policies of the tier apply to the workload, and none of them has a rule for these packets.'],
  profile: ['Denied by profile', 'A rule of a profile denies them.'],
  no_profile: ['No profile matched', 'No policy decided, and no profile allows them.'],
  invalid: ['Invalid', 'Connection tracking cannot place them: they belong to no connection and open none.'],
  encapsulation: ['Encapsulated', 'VXLAN or IP-in-IP that a workload sends itself.'],
  rate_limit: ['Packet rate limit', 'More packets per second than the workload may have.'],
  connection_limit: ['Connection limit', 'More connections than the workload may have.'],
  policy_or_none: ['A policy, or none', 'A policy denies them or none matched: the eBPF dataplane does not tell which.'],
  other: ['Others', 'More kinds of drops than are kept one by one for an hour.'],
  admin_down: ['Workload is down', 'Calico has set the endpoint down; all of its packets are dropped.'],
};

/** The short name of a reason. */
export function reasonLabel(reason) {
  return reasons[reason]?.[0] ?? reason;
}

/** Whether this is the name of a reason in the API. */
export function isReason(reason) {
  return Object.hasOwn(reasons, reason);
}

/** What a reason means. */
export function reasonWhy(reason) {
  return reasons[reason]?.[1] ?? '';
}

/** Whether the node is on Calico's eBPF dataplane, by its status. */
export function isEbpf(status) {
  return status?.tables.some((table) => table.backend === 'ebpf') ?? false;
}

/** `to` and `from` the workload, in the terms of policies. */
export function directionLabel(direction) {
  return { ingress: 'Ingress', egress: 'Egress' }[direction] ?? direction;
}

/** A workload as people write it: `shop/web-1`; its interface where nobody knows more. */
export function workloadName(workload) {
  return workload.pod ? `${workload.namespace}/${workload.pod}` : workload.interface;
}

/** A workload's addresses, without the length of networks of one address. */
export function addresses(workload) {
  return (workload.ip ?? []).map((address) => address.replace(/\/(32|128)$/, ''));
}

/** An address in its one shortest form; null if it is none. */
export function address(text) {
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text)) return text;
  const url = `http:[${text}]`;
  return text.includes(':') && URL.canParse(url) ? new URL(url).hostname.slice(1, -1) : null;
}

/** All that a workload is searched by. */
export function workloadText(workload) {
  const ips = addresses(workload).map((ip) => address(ip) ?? ip);
  return [workloadName(workload), workload.interface, workload.app ?? '', ...ips].join(' ');
}

/** Who a workload is, as it is exported. */
export function workloadFields({ namespace, pod, interface: device, app, ip }) {
  return { namespace, pod, interface: device, app: app ?? null, ip: ip ?? [] };
}

/** The dashboard of a workload or policy, which shows all nodes; null without a Grafana. `variables`: of the dashboard. */
export function dashboard(status, name, variables) {
  if (!status?.grafana) return null;
  const query = new URLSearchParams(Object.entries(variables).map(([variable, value]) => [`var-${variable}`, value]));
  return `${status.grafana}/d/calico-accountant-${name}?${query}`;
}

/** A policy as people write it: its own name; the id where there is nothing else. */
export function policyName(policy) {
  if (!policy.name) return policy.policy;
  return policy.namespace ? `${policy.namespace}/${policy.name}` : policy.name;
}

const kinds = {
  NetworkPolicy: 'Calico NetworkPolicy',
  GlobalNetworkPolicy: 'Calico GlobalNetworkPolicy',
  KubernetesNetworkPolicy: 'Kubernetes NetworkPolicy',
  StagedNetworkPolicy: 'Staged NetworkPolicy',
};

/** What kind of policy it is. */
export function kindLabel(policy) {
  return kinds[policy.kind] ?? policy.kind ?? '';
}
