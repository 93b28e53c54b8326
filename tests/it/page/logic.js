// Runs in the page. Returns a list of what is wrong.
const wrong = [];
const same = (what, found, expected) => {
  if (JSON.stringify(found) !== JSON.stringify(expected)) wrong.push(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`);
};
const load = (file) => import(new URL(`page/${file}`, document.baseURI).href);
const files = ['history.js', 'route.js', 'table.js', 'steps.js', 'format.js', 'search.js', 'export.js', 'model.js'];
const [{ History }, { parse, format, fromTime, toTime }, { select }, { rowsOf, endsOf }, text, { finds, termsOf, term }, { csv }, { Model }] = await Promise.all(files.map(load));

// Rates: over a window, since the first read, and of counters that begin, end or go back.
const history = new History();
history.add(100, [['a', 10]]);
same('one read', history.rate('a', 10), null);
history.add(102, [['a', 14], ['b', 7], ['c', 5]], (key) => (key === 'b' ? 0 : NaN));
same('two reads', history.rate('a', 10), 2);
same('observed', [history.observed(10), history.observed(1), new History().observed(10)], [2, 1, 0]);
same('began at 0', history.rate('b', 10), 3.5);
same('began unknown', history.rate('c', 10), null);
history.add(102, [['a', 99]]);
same('the same read again', history.series.get('a'), [10, 14]);
for (let time = 104; time <= 130; time += 2) history.add(time, [['a', 14], ['b', time]]);
same('quiet for a window', history.rate('a', 10), 0);
same('over an hour', history.rate('a', 3600), 4 / 30);
same('at a time', [history.rate('a', 10, 103), history.rate('b', 4, 109), history.rate('a', 10, 99)], [1, 1, null]);
same('ended', history.rate('c', 10), 0);
history.add(131, [['a', 14], ['b', 131], ['c', 25]]);
same('not told for a while', history.rate('c', 60), 20 / 29);
same('a sum', history.sum(['a', 'b'], 10), 1);
history.add(132, [['a', 3], ['b', 132]]);
same('went back', history.rate('a', 10), null);
history.add(134, [['a', 5], ['b', 134]]);
same('and on', history.rate('a', 10), 1);
same('the line', history.line(['a', 'b'], 180).at(-1), [134, 2]);
same('before it went back', history.rate('b', 10, 130), 1);
for (let time = 136; time < 8000; time += 2) history.add(time, [['a', time]]);
const apart = history.times.slice(1).map((time, at) => time - history.times[at]);
same('bounded', [history.times.length < 500, history.series.get('a').length === history.times.length, Math.max(...apart), [...history.series.keys()]], [true, true, 10, ['a']]);
same('an hour', [history.times.at(-1) - history.times[0] > 3580, history.rate('a', 3600)], [true, 1]);

// What the exporter kept: earlier counters derived from the totals, gaps, and later reads.
const model = new Model();
const status = { started: 1, time: 1030, up: true, chains: 'present' };
const drop = { interface: 'cali1', namespace: 'shop', pod: 'web-1', direction: 'ingress', reason: 'policy', tier: 'default', policy: 'p', packets: 20 };
const reads = [{ from: 1000, to: 1010 }, { from: 1010, to: 1020 }, { from: 1025, to: 1030 }];
const answer = { status, workloads: [{ interface: 'cali1' }], drops: [drop], unknown_interfaces: { ingress: 0, egress: 0 } };
model.takeWorkloads(answer);
model.takePast({ status, last: 1030, reads, drops: [{ ...drop, counted: [[0, 5], [2, 10]] }], rest: [[1, 40]] });
const [key, rest] = [...model.dropCounts.series.keys()];
same('kept counters', [model.dropCounts.times, model.dropCounts.series.get(key)], [[1000, 1010, 1020, 1025, 1030], [5, 10, 10, 10, 20]]);
same('kept line', model.dropCounts.line([key, rest], 3600), [[1010, 0.5], [1020, 4], [1025, null], [1030, 2]]);
same('a gap ends a rate', [model.dropCounts.rate(key, 60), model.dropCounts.rate(key, 60, 1020)], [2, 0.25]);
same('at a time', model.dropsAt(1005, 10).map((drop) => [drop.pod, drop.packets]), [['web-1', 5]]);
model.takeWorkloads({ ...answer, status: { ...status, time: 1040 }, drops: [{ ...drop, packets: 25 }] });
same('and on', [model.dropCounts.rate(key, 10), model.rateOfDrops(10)], [0.5, 0.5]);

// URLs: formatting and parsing with any characters.
for (const route of [{ view: 'workload', item: 'cali/?#&%', query: { q: '<b> & "x"', over: '60' } }, { view: 'policies', item: '', query: {} }]) {
  same('a route', parse(format(route)), route);
}
same('nonsense', [parse('#/nonsense/%zz?x').view, fromTime('yesterday'), fromTime()], ['drops', Infinity, Infinity]);
same('a time', [toTime(1772366405.4), fromTime(toTime(1772366405)), toTime(Infinity)], ['2026-03-01T12:00:05Z', 1772366405, '']);

// Sorting and searching.
const rows = [{ n: 'pod-10', v: 1 }, { n: 'pod-9', v: 1 }, { n: 'other', v: 2 }];
const columns = [{ id: 'n', value: (row) => row.n }, { id: 'v', value: (row) => [row.v] }];
const order = (state) => select(rows, columns, state, (row) => ({ text: row.n })).map((row) => row.n);
same('by name', order({}), ['other', 'pod-9', 'pod-10']);
same('descending', order({ sort: '-v' }), ['other', 'pod-9', 'pod-10']);
same('found', order({ query: 'POD 1' }), ['pod-10']);
same('no such column', order({ sort: 'x' }), ['other', 'pod-9', 'pod-10']);

// Searching by field, address and name.
const row = { text: 'shop/web-1 cali1 10.0.0.1 fd00::1 Denied by policy', ns: ['shop'], tier: ['default'], policy: ['shop/default.web-deny', 'shop/web-deny'], reason: ['policy', 'Denied by policy'], verdict: ['deny', 'denied', 'dropped'] };
for (const [query, found] of Object.entries({
  '': true, 'shop/web-1': true, 'web 10.0': true, '10.0.0.1': true, '10.0.0.1/32': true, '10.0.0.2': false, '10.0.0.10': false, '0.0.0.1': false,
  'FD00:0:0::1': true, 'fd00::': false, '-fd00::1': false, 'ns:shop': true, 'ns:sho': false, '-ns:shop': false, '-ns:other web': true, 'ns:': true, '-': true,
  'policy:web-deny': true, 'policy:shop/default.web': true, 'policy:web-allow': false, 'reason:policy': true, 'reason:no_policy': false, 'reason:denied': true,
  'verdict:drop': true, 'verdict:accept': false, 'tier:default -verdict:accept': true, 'tier:"default"': true, '"web-1 cali1"': true, '"cali1 web-1"': false, 'a:b': false,
})) {
  same(`search ${query}`, finds(termsOf(query), row), found);
}
same('a term', [term('tier', 'my "tier" x'), termsOf(term('tier', 'a b'))[0].wanted], ['tier:"my  tier  x"', 'a b']);

// Files.
same('csv', csv([{ a: 1, b: null, c: ['x', 'y'] }, { a: -2, b: '=1+1', d: 'a "b", c' }]), 'a,b,c,d\r\n1,,x y,\r\n-2,\'=1+1,,"a ""b"", c"\r\n');

// Steps: what is impossible differs from what is unknown.
const policy = { type: 'policy', policy: 'p', name: 'p', can: ['accept', 'deny', 'pass'], accept: 3, deny: null, pass: null, deny_or_pass: 4 };
const certain = { ...policy, can: ['accept', 'deny'], accept: 1, deny: null, deny_or_pass: null };
const group = { type: 'group', group: 'g', policies: [certain, { ...certain, policy: 'q' }], undivided: { accept: 2, deny: 0, pass: 0, deny_or_pass: 0 } };
const direction = {
  direction: 'ingress', established: null, before: [{ reason: 'invalid', packets: 2 }],
  tiers: [{ tier: 't', default_action: 'deny', targets: [policy, group], no_policy: 5 }, { tier: 'u', default_action: 'pass', targets: [], no_policy: null }],
  profiles: [{ profile: 'f', accept: 6 }], no_profile: 0,
};
const short = rowsOf(direction).map((row) => [row.kind, row.accept, row.deny, row.pass, row.deny_or_pass].map((value) => ({ impossible: '-', unknown: '?' })[value] ?? value ?? '').join(' ').trim());
same('rows', short, [
  'head', 'check - 2 -', 'head', 'policy 3 ? ? 4', 'group', 'member 1 ? -', 'member 1 ? -', 'undivided 2 0 0', 'end - 5 -',
  'head', 'end - - -', 'head', 'profile 6 - -', 'end - 0 -',
]);
same('ends', endsOf(direction).map((end) => [end.id, end.packets]), [['accept', 7], ['profile', 6], ['unknown', 4], ['check before invalid', 2], ['no policy', 5]]);

// Texts.
same('rates', [null, 0, 0.001, 0.25, 9.94, 12.3, 12345, 234567].map(text.rate), ['…', '0', '<0.01/s', '0.25/s', '9.9/s', '12/s', '12,345/s', '234.6K/s']);
same('names', text.name('a\nb\u202ec\u0000'), 'a\\nb\\u{202e}c\\u{0}');
same('long names', text.name('x'.repeat(500)).length, 121);
return wrong;
