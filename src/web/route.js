// The state of the page that a URL carries: `#/workloads?q=shop&sort=-dropped`. Pure.

const VIEWS = ['drops', 'workloads', 'workload', 'policies', 'policy', 'hosts'];

/** `{ view, item, query }`; what is not understood is the first view. */
export function parse(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [view, item = ''] = path.split('/', 2);
  return { view: VIEWS.includes(view) ? view : VIEWS[0], item: decode(item), query: Object.fromEntries(new URLSearchParams(query)) };
}

/** The URL of a route. Empty values are left out. */
export function format({ view, item = '', query = {} }) {
  const set = Object.entries(query).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  const text = new URLSearchParams(set).toString();
  return `#/${view}${item && `/${encodeURIComponent(item)}`}${text && `?${text}`}`;
}

/** A time as it stands in a URL, `2026-03-01T12:00:05Z`; nothing for now, Infinity. */
export function toTime(seconds) {
  return seconds === Infinity ? '' : new Date(Math.floor(seconds) * 1000).toISOString().replace('.000', '');
}

/** The same in seconds; what is not understood is now. */
export function fromTime(text = '') {
  const time = Date.parse(text) / 1000;
  return Number.isNaN(time) ? Infinity : time;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
