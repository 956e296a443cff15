// What all figures share. Every figure's script is wrapped in a function of its own, so nothing here is global.
"use strict";

// Runs start(root, data) for the first figure of this key on the page that does not run yet. A figure whose start
// returns false keeps its static picture.
function begin(key, start) {
  const root = document.querySelector('[data-mvs="' + key + '"]:not([data-on])');
  if (!root) return;
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  root.dataset.on = "yes";
  if (start(root, data) === false) root.dataset.on = "no";
}

// The element that the figure's HTML calls by this name.
function part(root, name) {
  return root.querySelector('[data-part="' + name + '"]');
}

function parts(root, name) {
  return Array.from(root.querySelectorAll('[data-part="' + name + '"]'));
}

// The inverse of pack() in figure.py.
function unpack(packed) {
  const types = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, float32: Float32Array };
  const bytes = Uint8Array.from(atob(packed.bytes), (letter) => letter.charCodeAt(0));
  return new types[packed.type](bytes.buffer);
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// A number with fixed digits and a true minus sign; a value that is not there is said so.
function show(value, digits) {
  if (!Number.isFinite(value)) return "not measured";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "\u2212");
}

// Calls act(x, y, pressed), both from 0 to 1, while a pointer moves over the element. A vertical swipe still scrolls.
function follow(element, act) {
  let held = false;
  const report = (event) => {
    const box = element.getBoundingClientRect();
    const x = clamp((event.clientX - box.left) / box.width, 0, 1);
    act(x, clamp((event.clientY - box.top) / box.height, 0, 1), held);
  };
  element.addEventListener("pointerdown", (event) => {
    held = event.button === 0;
    if (held) element.setPointerCapture(event.pointerId);
    report(event);
  });
  element.addEventListener("pointermove", report);
  for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => { held = false; });
}
