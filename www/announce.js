/** Says to a screen reader what others see, one thing at a time and not too often. */

import { displayText } from './format.js';

const AT_MOST_EVERY_MS = 15_000;
/** A sentence with a name in it. */
const MAX_SAID_CHARS = 400;

let lastProgress = 0;

/** @param {string} text */
export function announce(text) {
  const region = document.getElementById('announcer');
  if (!region) return;
  // The same words twice are only spoken twice if the region was empty in between.
  region.textContent = '';
  requestAnimationFrame(() => {
    region.textContent = displayText(text, MAX_SAID_CHARS);
  });
}

/** @param {string} text */
export function announceProgress(text) {
  const now = performance.now();
  if (now - lastProgress < AT_MOST_EVERY_MS) return;
  lastProgress = now;
  announce(text);
}
