// Elements, made and kept in line with what is to be shown. Whatever comes from the mesh is foreign text: it
// becomes text nodes and values of attributes here, and never markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** Makes an element: attributes, then children (elements or text). */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text where it differs, so that a selection survives. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

export function tone(element, value) {
  if (value) element.dataset.tone = value;
  else delete element.dataset.tone;
}

/** Brings the children of an element in line with a list: each item has a key, a maker, an updater. */
export function list(parent, items, key, make, update) {
  const wanted = new Set(items.map(key));
  const there = new Map();
  // Those that go, first: then those that stay need not be moved.
  for (const child of [...parent.children]) {
    if (wanted.has(child.dataset.key)) there.set(child.dataset.key, child);
    else child.remove();
  }
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = there.get(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
      there.set(name, child);
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update(child, item);
  }
}

/** Named parts of an element, found once. */
export function part(element, name) {
  element.parts ??= {};
  return (element.parts[name] ??= element.querySelector(`[data-part="${name}"]`));
}
