// Building and changing the page. Text from servers and clients is hostile: it only ever becomes text nodes and
// attribute values, never markup.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const el = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

// Sets a text only if it differs: what a reader has selected stays selected, and live regions speak only of changes.
export function text(node, value) {
  const wanted = String(value ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function attribute(node, name, value) {
  if (value === null || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const known = new WeakMap();

// Makes the children of `parent` those of `items`, in order. `make(item)` gives { node, update }; a node lives as long
// as its key is there, so focus, selection and opened details survive.
export function keyed(parent, items, keyOf, make) {
  const before = known.get(parent) ?? new Map();
  const after = new Map();
  const counts = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const base = keyOf(item);
    const nth = counts.get(base) ?? 0;
    counts.set(base, nth + 1);
    const key = `${nth} ${base}`;
    const entry = before.get(key) ?? make(item);
    after.set(key, entry);
    entry.update?.(item);
    if (entry.node === at) at = at.nextSibling;
    else parent.insertBefore(entry.node, at);
  }
  for (const [key, entry] of before) if (!after.has(key)) entry.node.remove();
  known.set(parent, after);
}
