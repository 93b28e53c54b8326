// The exporter's terms, in words for people. Pure.

/** The label and the meaning of each `reason` of the API. */
const reasons = {
  policy: ['Denied by policy', 'A rule of a policy denies them.'],
  no_policy: ['No policy matched', 'Policies of the tier apply to the workload, and none of them has a rule for these packets.'],
  profile: ['Denied by profile', 'A rule of a profile denies them.'],
  no_profile: ['No profile matched', 'No policy decided, and no profile allows them.'],
  invalid: ['Invalid', 'Connection tracking cannot place them: they belong to no connection and open none.'],
  encapsulation: ['Encapsulated', 'VXLAN or IP-in-IP that a workload sends itself.'],
  rate_limit: ['Packet rate limit', 'More packets per second than the workload may have.'],
  connection_limit: ['Connection limit', 'More connections than the workload may have.'],
  policy_or_none: ['A policy, or none', 'A policy denied them, or none matched. The eBPF dataplane does not count these separately.'],
  other: ['Others', 'More kinds of drops than are kept one by one for an hour.'],
  admin_down: ['Workload is down', 'Calico has set the endpoint down; all of its packets are dropped.'],
};

export function reasonLabel(reason) {
  return reasons[reason]?.[0] ?? reason;
}

export function isReason(reason) {
  return Object.hasOwn(reasons, reason);
}

export function reasonWhy(reason) {
  return reasons[reason]?.[1] ?? '';
}

/** Whether the node uses Calico's eBPF dataplane, by its status. */
export function isEbpf(status) {
  return status?.tables.some((table) => table.backend === 'ebpf') ?? false;
}

/** A direction in the terms of policies: ingress is to the workload, egress from it. */
export function directionLabel(direction) {
  return { ingress: 'Ingress', egress: 'Egress' }[direction] ?? direction;
}

/** A workload's display name: `shop/web-1`, or its interface if the name is unknown. */
export function workloadName(workload) {
  return workload.pod ? `${workload.namespace}/${workload.pod}` : workload.interface;
}

/** A workload's addresses, without the prefix length of single addresses. */
export function addresses(workload) {
  return (workload.ip ?? []).map((address) => address.replace(/\/(32|128)$/, ''));
}

/** Returns an address in its shortest form, or null if the text is no address. */
export function address(text) {
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text)) return text;
  const url = `http:[${text}]`;
  return text.includes(':') && URL.canParse(url) ? new URL(url).hostname.slice(1, -1) : null;
}

/** The text of a workload that is searched. */
export function workloadText(workload) {
  const ips = addresses(workload).map((ip) => address(ip) ?? ip);
  return [workloadName(workload), workload.interface, workload.app ?? '', ...ips].join(' ');
}

/** The fields that identify a workload in an export. */
export function workloadFields({ namespace, pod, interface: device, app, ip }) {
  return { namespace, pod, interface: device, app: app ?? null, ip: ip ?? [] };
}

/** The URL of the dashboard of a workload or policy, which shows all nodes; null without Grafana. `variables` are the dashboard's. */
export function dashboard(status, name, variables) {
  if (!status?.grafana) return null;
  const query = new URLSearchParams(Object.entries(variables).map(([variable, value]) => [`var-${variable}`, value]));
  return `${status.grafana}/d/calico-accountant-${name}?${query}`;
}

/** A policy's display name, or its id if it has no name. */
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

export function kindLabel(policy) {
  return kinds[policy.kind] ?? policy.kind ?? '';
}
