// Small charts of history: accepted above the middle, dropped below it, each half on its own scale.

import { setAttribute, svg } from './dom.js';
import { rate } from './format.js';

/** The shortest time that a chart spans, in seconds. */
const SHORTEST = 60;

/**
 * Returns a chart of `width` × `height` over the last `span` seconds, or the known part of them. `update(up, down)` takes points of time
 * and rate (see History.line). If it is not `mirrored`, there is no `down`: the whole height is for `up`, in the colour of drops.
 */
export function sparkline(width, height, { mirrored = true, span = 180 } = {}) {
  const up = svg('path', { class: mirrored ? 'up' : 'down' });
  const down = svg('path', { class: 'down' });
  const middle = mirrored ? Math.round(height * 0.58) : height - 1;
  const axis = svg('path', { class: 'axis', d: `M0 ${middle + 0.5}H${width}` });
  // Replaced by the first update.
  const title = svg('title', {}, 'History');
  const node = svg('svg', { class: 'spark', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img' }, title, axis, up, down);

  function update(above, below = []) {
    const [most, worst] = [largest(above), largest(below)];
    setAttribute(up, 'd', area(above, most, { span, width, base: middle, height: middle - 1 }));
    setAttribute(down, 'd', area(below, worst, { span, width, base: middle + 1, height: -(height - middle - 2) }));
    const text = mirrored ? `Accepted: at most ${rate(most)}. Dropped: at most ${rate(worst)}` : `Dropped: at most ${rate(most)}`;
    if (title.textContent !== text) title.textContent = text;
  }
  return { node, update };
}

function largest(points) {
  return points.reduce((most, [, value]) => Math.max(most, value ?? 0), 0);
}

/** The seconds that a chart of these points spans. */
export function spanOf(points, longest) {
  return Math.min(Math.max(points.at(-1)[0] - points[0][0], SHORTEST), longest);
}

/** The outline of the area between the base and the points. It is empty if all rates are 0, and interrupted at unknown ones. */
function area(points, most, { span: longest, width, base, height }) {
  if (most === 0 || points.length === 0) return 'M0 0';
  const end = points.at(-1)[0];
  const span = spanOf(points, longest);
  let [path, last] = ['', null];
  const close = () => (path += last === null ? '' : `L${last.toFixed(1)} ${base}Z`);
  for (const [time, value] of points) {
    const x = width * (1 - (end - time) / span);
    if (x < 0) continue;
    if (value === null) {
      close();
      last = null;
      continue;
    }
    const y = base - (height * value) / most;
    path += last === null ? `M${x.toFixed(1)} ${base}L${x.toFixed(1)} ${y.toFixed(1)}` : `L${x.toFixed(1)} ${y.toFixed(1)}`;
    last = x;
  }
  close();
  return path;
}
