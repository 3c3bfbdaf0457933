// Numbers -> text, and small helpers for the document.

const whole = new Intl.NumberFormat("en");

export const count = (n) => whole.format(n);
export const fixed = (n, digits) => (Number.isFinite(n) ? n.toFixed(digits) : "");
export const decibels = (n) => (n === Infinity ? "equal" : fixed(n, 2));

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text, never markup. */
export function element(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Point a link at some bytes under a name; the address it had before is given back. */
export function offer(link, blob, name) {
  if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(blob);
  link.download = name;
}

export const stem = (name) => name.replace(/\.[^.]*$/, "") || "picture";
