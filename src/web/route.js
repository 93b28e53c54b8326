// The page's state in its URL: `#/workloads?q=shop&sort=-dropped`. Pure.

const VIEWS = ['drops', 'workloads', 'workload', 'policies', 'policy', 'hosts'];

/** Returns `{ view, item, query }`. An unknown URL gives the first view. */
export function parse(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [view, item = ''] = path.split('/', 2);
  return { view: VIEWS.includes(view) ? view : VIEWS[0], item: decode(item), query: Object.fromEntries(new URLSearchParams(query)) };
}

/** Returns the URL of a route. Empty values are left out. */
export function format({ view, item = '', query = {} }) {
  const set = Object.entries(query).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  const text = new URLSearchParams(set).toString();
  return `#/${view}${item && `/${encodeURIComponent(item)}`}${text && `?${text}`}`;
}

/** Formats a time for the URL: `2026-03-01T12:00:05Z`. Now (Infinity) is an empty text. */
export function toTime(seconds) {
  return seconds === Infinity ? '' : new Date(Math.floor(seconds) * 1000).toISOString().replace('.000', '');
}

/** Parses a time of the URL into seconds. An invalid time gives now (Infinity). */
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
