// Runs in the page; returns what is wrong.
const wrong = [];
const same = (what, found, expected) => {
  if (JSON.stringify(found) !== JSON.stringify(expected)) wrong.push(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`);
};
const load = (file) => import(new URL(`page/${file}`, document.baseURI).href);
const [{ History }, { parse, format }, { select }, { rowsOf, endsOf }, text] = await Promise.all(['history.js', 'route.js', 'table.js', 'steps.js', 'format.js'].map(load));

// Rates: over a window, since the first read, of counters that begin, end or go back.
const history = new History();
history.add(100, [['a', 10]]);
same('one read', history.rate('a', 10), null);
history.add(102, [['a', 14], ['b', 7], ['c', 5]], (key) => (key === 'b' ? 0 : NaN));
same('two reads', history.rate('a', 10), 2);
same('observed', [history.observed(10), history.observed(1), new History().observed(10)], [2, 1, 0]);
same('began at 0', history.rate('b', 10), 3.5);
same('began unknown', history.rate('c', 10), null);
history.add(102, [['a', 99]]);
same('the same read again', history.series.get('a').values, [10, 14]);
for (let time = 104; time <= 130; time += 2) history.add(time, [['a', 14], ['b', time]]);
same('quiet for a window', history.rate('a', 10), 0);
same('since the first', history.rate('a', Infinity), 4 / 30);
same('ended', history.rate('c', 10), null);
same('a sum', history.sum(['a', 'b'], 10), 1);
history.add(132, [['a', 3], ['b', 132]]);
same('went back', history.rate('a', 10), null);
history.add(134, [['a', 5], ['b', 134]]);
same('and on', history.rate('a', 10), 1);
same('the line', history.line(['a', 'b']).at(-1), [134, 2]);
for (let time = 136; time < 800; time += 2) history.add(time, [['a', 5]]);
same('bounded', [history.times.length, history.series.get('a').values.length], [100, 100]);

// URLs: there and back, with anything in them.
for (const route of [{ view: 'workload', item: 'cali/?#&%', query: { q: '<b> & "x"', over: '60' } }, { view: 'policies', item: '', query: {} }]) {
  same('a route', parse(format(route)), route);
}
same('nonsense', parse('#/nonsense/%zz?x').view, 'drops');

// Sorting and searching.
const rows = [{ n: 'pod-10', v: 1 }, { n: 'pod-9', v: 1 }, { n: 'other', v: 2 }];
const columns = [{ id: 'n', value: (row) => row.n }, { id: 'v', value: (row) => [row.v] }];
const order = (state) => select(rows, columns, state, (row) => row.n).map((row) => row.n);
same('by name', order({}), ['other', 'pod-9', 'pod-10']);
same('descending', order({ sort: '-v' }), ['other', 'pod-9', 'pod-10']);
same('found', order({ query: 'POD 1' }), ['pod-10']);
same('no such column', order({ sort: 'x' }), ['other', 'pod-9', 'pod-10']);

// Steps: what cannot be and what cannot be told differ.
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
