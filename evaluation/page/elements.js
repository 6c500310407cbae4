"use strict";

// Building blocks of every page. Names come from files, so they are only ever set as text or as an attribute that is
// shown as text.

function byId(id) { return document.getElementById(id); }

/** An element. Children that are strings become text; attributes that are null or false are left out. */
function el(tag, attributes = {}, ...children) { return fill(document.createElement(tag), attributes, children); }

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function button(attributes, ...children) { return el("button", { type: "button", ...attributes }, ...children); }

/** pairs: [value, label] of each option. */
function setOptions(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, label]) => el("option", { value }, label)));
  select.value = chosen;
}

function rgb(colour) { return `rgb(${colour.join(" ")})`; }

function swatch(colour) {
  const square = el("i", { class: "swatch" });
  square.style.background = colour; // not as an attribute, which the policy of a page may forbid
  return square;
}
