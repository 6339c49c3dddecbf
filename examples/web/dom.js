/** An element by its id. */
export const $ = (id) => document.getElementById(id);

/** A new element. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const LOCALE = "en";
const number = (digits) => new Intl.NumberFormat(LOCALE, { maximumFractionDigits: digits });

export const count = (n) => number(0).format(n);
export const rate = (n) => number(n < 100 ? 1 : 0).format(n);
export const percent = (share) => `${number(share < 0.1 ? 1 : 0).format(100 * share)} %`;
export const bytes = (n) => `${number(n < 1e8 ? 1 : 0).format(n / 1e6)} MB`;

/** Shows what went wrong, or nothing. */
export function complain(element, error) {
  element.hidden = !error;
  element.textContent = error ? error.message : "";
}
