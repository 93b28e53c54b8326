// Small lines of history: accepted above the middle, dropped below it, each half on a scale of its own.

import { setAttribute, svg } from './dom.js';
import { rate } from './format.js';

/** The time that a line spans, in seconds: at first a minute, then all that is known. */
const SPAN = [60, 180];

/**
 * A line of `width` × `height`. `update(up, down)` takes points of time and rate (see History.line); without `down`, the whole
 * height is for `up`.
 */
export function sparkline(width, height, { mirrored = true, label = 'Dropped' } = {}) {
  const up = svg('path', { class: mirrored ? 'up' : 'down' });
  const down = svg('path', { class: 'down' });
  const middle = mirrored ? Math.round(height * 0.58) : height - 1;
  const axis = svg('path', { class: 'axis', d: `M0 ${middle + 0.5}H${width}` });
  const title = svg('title');
  const node = svg('svg', { class: 'spark', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img' }, title, axis, up, down);

  function update(above, below = []) {
    const [most, worst] = [largest(above), largest(below)];
    setAttribute(up, 'd', area(above, most, width, middle, middle - 1));
    setAttribute(down, 'd', area(below, worst, width, middle + 1, -(height - middle - 2)));
    const text = mirrored ? `Accepted: at most ${rate(most)}. Dropped: at most ${rate(worst)}` : `${label}: at most ${rate(most)}`;
    if (title.textContent !== text) title.textContent = text;
  }
  return { node, update };
}

function largest(points) {
  return points.reduce((most, [, value]) => Math.max(most, value), 0);
}

/** The outline of the area between the base and the points; empty where all is 0. */
function area(points, most, width, base, height) {
  if (most === 0 || points.length === 0) return 'M0 0';
  const end = points.at(-1)[0];
  const span = Math.min(Math.max(end - points[0][0], SPAN[0]), SPAN[1]);
  let [path, last] = ['', 0];
  for (const [time, value] of points) {
    const x = width * (1 - (end - time) / span);
    if (x < 0) continue;
    const y = base - (height * value) / most;
    path += path === '' ? `M${x.toFixed(1)} ${base}L${x.toFixed(1)} ${y.toFixed(1)}` : `L${x.toFixed(1)} ${y.toFixed(1)}`;
    last = x;
  }
  return `${path}L${last.toFixed(1)} ${base}Z`;
}
