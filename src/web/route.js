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

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
