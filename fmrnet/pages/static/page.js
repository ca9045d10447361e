// What every page's scripts stand on: its data and texts, numbers as people read them, elements.
"use strict";

const page = {
  data: JSON.parse(document.getElementById("data").textContent),
  text: JSON.parse(document.getElementById("text").textContent),
};

// A text with values in the place of their names in braces.
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// The form of a text that fits a number.
const plural = (text, n, values = {}) => fill(text[n === 1 ? "one" : "other"], { n: number(n), ...values });

const locale = document.documentElement.lang;
const number = (value, digits = 3) => {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(digits > 1 ? 1 : 0);
  if (Number.isInteger(value)) return new Intl.NumberFormat(locale).format(value);
  return new Intl.NumberFormat(locale, { maximumSignificantDigits: digits }).format(value);
};
const percent = (share) => fill(page.text.common.percent, { n: number(100 * share) });

// An element with its properties, attributes where the name has a dash or is `role`, and what is in it.
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}
