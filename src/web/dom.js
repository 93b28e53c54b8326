// Creates elements and changes them in place. Text is only ever inserted as text, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

/** Returns a new element with attributes and children. A string becomes a text node. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Like `el`, for SVG elements. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    setAttribute(element, name, value);
  }
  element.append(...children);
  return element;
}

/** Sets an attribute if its value differs. Null, undefined and false remove it. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

/** Sets the text of an element that holds nothing else. */
export function setText(element, text) {
  const node = element.firstChild;
  if (node === null) {
    element.append(document.createTextNode(text));
  } else if (node.data !== text) {
    node.data = text;
  }
}

export function show(element, visible) {
  if (element.hidden === visible) {
    element.hidden = !visible;
  }
}

const pending = new WeakMap();
const observer = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => pending.get(target)?.(isIntersecting)), {
  rootMargin: '300px',
});

/**
 * For purely visual content, such as charts: returns a function that calls `update` only while the element is on the screen. The last
 * call before that is made when the element comes onto the screen.
 */
export function whenSeen(element, update) {
  let [seen, waiting] = [false, null];
  const flush = () => {
    if (waiting !== null) update(...waiting);
    waiting = null;
  };
  pending.set(element, (now) => {
    seen = now ?? seen;
    if (now !== false) flush();
  });
  observer.observe(element);
  element.classList.add('when-seen');
  return (...args) => {
    waiting = args;
    if (seen) flush();
  };
}

// A print includes elements that are not on the screen.
addEventListener('beforeprint', () => document.querySelectorAll('.when-seen').forEach((element) => pending.get(element)?.()));

const known = new WeakMap();

/**
 * Makes the children of an element match the items, in their order. Existing children are kept and updated, so that focus, selection
 * and scroll position are kept. `create(item)` returns `{ node, update(item, index) }`.
 */
export function reconcile(parent, items, keyOf, create) {
  const before = known.get(parent) ?? new Map();
  const after = new Map();
  items.forEach((item, index) => {
    const key = keyOf(item);
    const child = before.get(key) ?? create(item);
    before.delete(key);
    after.set(key, child);
    child.update(item, index);
  });
  for (const child of before.values()) {
    child.node.remove();
  }
  let place = parent.firstChild;
  for (const child of after.values()) {
    if (child.node === place) {
      place = place.nextSibling;
    } else {
      parent.insertBefore(child.node, place);
    }
  }
  known.set(parent, after);
  return after;
}
