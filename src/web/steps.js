// Turns a pipeline of the API into the rows of a table, in the order of evaluation. Pure.

import { kindLabel, policyName, reasonLabel, reasonWhy } from './words.js';

const VERDICTS = ['accept', 'deny', 'pass', 'deny_or_pass'];

/** The values of a verdict that has no number. */
export const IMPOSSIBLE = 'impossible';
export const UNKNOWN = 'unknown';

/**
 * The rows of one direction: `{ key, kind, title, note, hint, place, policy, accept, deny, pass, deny_or_pass }`. A verdict is a number,
 * IMPOSSIBLE or UNKNOWN; `deny_or_pass` is a number or null.
 */
export function rowsOf(direction) {
  const rows = [];
  // Whether packets of the pipeline cannot be divided between several tiers' policies, or profiles.
  const shares = direction.undivided > 0;
  if (direction.before.length > 0) {
    const beside = direction.before.some(({ reason }) => reason === 'policy_or_none');
    rows.push({ key: 'before', kind: 'head', title: beside ? 'Not told apart' : 'Before any policy', note: '' });
    for (const { reason, packets } of direction.before) {
      rows.push({ key: `before ${reason}`, kind: 'check', title: reasonLabel(reason), note: '', hint: reasonWhy(reason), ...only('deny', packets) });
    }
  }
  for (const tier of direction.tiers) rows.push(...rowsOfTier(tier, !shares));
  if (direction.profiles.length > 0 || direction.no_profile !== null) {
    const asked = direction.tiers.length === 0 ? 'No policy applies in this direction' : 'Asked where no tier has decided';
    rows.push({ key: 'profiles', kind: 'head', title: 'Profiles', note: asked });
    for (const { profile, accept } of direction.profiles) {
      const title = profile === '' ? 'Profiles' : profile;
      rows.push({ key: `profile ${profile}`, kind: 'profile', title, note: '', isExact: !shares, ...only('accept', accept) });
    }
    if (direction.by_profile > 0) {
      rows.push({ key: 'by profile', kind: 'end', title: 'Denied by profile', note: '', ...only('deny', direction.by_profile) });
    }
    if (direction.no_profile !== null) {
      rows.push({ key: 'no profile', kind: 'end', title: 'No profile matched', note: '', ...only('deny', direction.no_profile) });
    }
  }
  if (shares) {
    rows.push({ key: 'shared', kind: 'head', title: 'Of several tiers or profiles', note: '' });
    rows.push({ key: 'undivided', kind: 'undivided', title: 'One of them', note: 'it is unknown which one', ...only('accept', direction.undivided) });
  }
  return rows;
}

function rowsOfTier(tier, areExact) {
  const key = `tier ${tier.tier}`;
  const rows = [{ key, kind: 'head', title: `Tier ${tier.tier}`, note: '' }];
  let place = 0;
  const policyRow = (policy, kind, isExact) => {
    place += 1;
    const note = kindLabel(policy);
    return { key: `${key} policy ${place} ${policy.policy}`, kind, title: policyName(policy), note, place, policy: policy.policy, isExact, ...verdicts(policy) };
  };
  for (const target of tier.targets) {
    if (target.type === 'group') {
      const undivided = VERDICTS.some((verdict) => target.undivided[verdict] > 0);
      const group = `${key} ${target.group}`;
      rows.push({ key: group, kind: 'group', title: `Group of ${target.policies.length} policies`, note: target.group === 'ebpf' ? '· eBPF does not count each of them for each workload' : '· one chain, shared by workloads' });
      rows.push(...target.policies.map((policy) => policyRow(policy, 'member', !undivided)));
      const any = { ...target.undivided, can: [...new Set(target.policies.flatMap((policy) => policy.can))] };
      if (undivided) rows.push({ key: `${group} undivided`, kind: 'undivided', title: 'One of the group', note: 'it is unknown which one', ...verdicts(any) });
    } else {
      rows.push(policyRow(target, 'policy', areExact));
    }
  }
  const passes = tier.default_action === 'pass';
  const end = passes ? 'the tier passes them on' : 'the tier drops them';
  rows.push({ key: `${key} end`, kind: 'end', title: 'No policy matched', note: end, ...(passes ? none() : only('deny', tier.no_policy)) });
  return rows;
}

/** The verdicts of a row that has only one. */
function only(verdict, packets) {
  return { ...none(), [verdict]: packets ?? UNKNOWN };
}

function none() {
  return { accept: IMPOSSIBLE, deny: IMPOSSIBLE, pass: IMPOSSIBLE, deny_or_pass: null };
}

function verdicts(policy) {
  const of = (verdict) => policy[verdict] ?? (policy.can.includes(verdict) ? UNKNOWN : IMPOSSIBLE);
  const merged = policy.deny_or_pass > 0 || (policy.deny_or_pass !== null && of('deny') === UNKNOWN && of('pass') === UNKNOWN);
  return { accept: of('accept'), deny: of('deny'), pass: of('pass'), deny_or_pass: merged ? policy.deny_or_pass : null };
}

/** The counters of an endpoint's pipelines, as entries for a History. */
export function countersOf(directions) {
  return directions.flatMap((direction) => {
    const rows = rowsOf(direction).flatMap((row) => VERDICTS.map((verdict) => [`${direction.direction} ${row.key} ${verdict}`, row[verdict]]));
    return rows.filter(([, value]) => typeof value === 'number');
  });
}

/** The rows of an endpoint's pipelines, as they are exported. A verdict is null if there is no number. */
export function recordsOf(directions) {
  return directions.flatMap((direction) => {
    let group = '';
    return rowsOf(direction).flatMap((row) => {
      if (row.kind === 'head') group = row.title;
      if (!(VERDICTS.some((verdict) => verdict in row))) return [];
      const counts = VERDICTS.map((verdict) => [verdict, typeof row[verdict] === 'number' ? row[verdict] : null]);
      return [{ direction: direction.direction, part: group, step: row.title, policy: row.policy ?? null, ...Object.fromEntries(counts), exact: row.isExact !== false }];
    });
  });
}

const STATES = ['accept', 'unknown', 'deny', 'end'];

/** Where the packets of one direction ended: `{ id, label, state, packets }`. Ends without packets are left out. */
export function endsOf(direction) {
  const sums = new Map();
  const add = (id, label, state, packets) => {
    if (!(packets > 0)) return;
    const end = sums.get(id) ?? { id, label, state, packets: 0 };
    end.packets += packets;
    sums.set(id, end);
  };
  for (const row of rowsOf(direction)) {
    if (row.kind === 'check') add(`check ${row.key}`, row.title.toLowerCase(), 'deny', row.deny);
    else if (row.kind === 'profile') add('profile', 'accepted by a profile', 'accept', row.accept);
    else if (row.kind === 'end') add(row.key === 'no profile' ? row.key : 'no policy', row.title.toLowerCase(), 'end', row.deny);
    else {
      add('accept', 'accepted by policy', 'accept', row.accept);
      add('deny', 'denied by policy', 'deny', row.deny);
      add('unknown', 'denied or passed on', 'unknown', row.deny_or_pass);
    }
  }
  return [...sums.values()].sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state));
}
