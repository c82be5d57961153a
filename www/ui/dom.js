/** Small helpers for building the page. Text from outside only ever becomes a text node. */

import { bytes, displayText, exactBytes } from '../format.js';

/** How long a button says that it has copied. */
const COPIED_MS = 2000;

/**
 * An element with attributes and children; strings become text.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | boolean | null | undefined>} [attributes]
 * @param {(Node | string | null | undefined | false)[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, '');
    else if (typeof value === 'string') element.setAttribute(name, value);
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

/**
 * A copy of a template, and a way to its named slots.
 * @param {string} id
 */
export function fromTemplate(id) {
  const template = /** @type {HTMLTemplateElement} */ (byId(id));
  const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
  const root = /** @type {HTMLElement} */ (copy.firstElementChild);
  const slots = new Map([...root.querySelectorAll('[data-slot]')].map((one) => [one.getAttribute('data-slot'), one]));
  /**
   * @param {string} name
   * @returns {HTMLElement}
   */
  const slot = (name) => {
    const element = slots.get(name);
    if (!(element instanceof HTMLElement)) throw new Error(`template ${id} has no slot ${name}`);
    return element;
  };
  return { root, slot };
}

/** @param {string} id */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/**
 * A size, with the exact number of bytes at hand.
 * @param {number} count
 */
export const size = (count) => el('data', { value: String(count), title: exactBytes(count) }, bytes(count));

/**
 * Text from an image or a file name: isolated, so that its writing direction stays its own.
 * @param {string} text
 * @param {number} [limit]
 */
export const foreign = (text, limit) => el('bdi', {}, displayText(text, limit));

/**
 * A sentence of the engine: what it sets in backticks is something to type.
 * @param {string} text
 * @param {number} [limit]
 * @returns {Node[]}
 */
export const prose = (text, limit = 1000) =>
  displayText(text, limit)
    .split('`')
    .map((part, index) => (index % 2 === 1 ? el('kbd', {}, part) : document.createTextNode(part)));

/**
 * A command with a button that copies it.
 * @param {string} command
 */
export function copyable(command) {
  const code = el('code', {}, command);
  const copy = button('Copy', () => {
    navigator.clipboard.writeText(command).then(
      () => {
        copy.textContent = 'Copied';
        setTimeout(() => {
          copy.textContent = 'Copy';
        }, COPIED_MS);
      },
      // Where the browser refuses, the text is marked for a copy by hand.
      () => window.getSelection()?.selectAllChildren(code),
    );
  });
  copy.setAttribute('aria-label', `Copy: ${command}`);
  return el('div', { class: 'command' }, code, copy);
}

/**
 * @param {string} label
 * @param {() => void} action
 * @param {string} [className]
 */
export function button(label, action, className) {
  const element = el('button', { type: 'button', class: className }, label);
  element.addEventListener('click', action);
  return element;
}

/** @param {string} symbol */
export function icon(symbol) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 20 20');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#${symbol}`);
  svg.append(use);
  return svg;
}

/**
 * Offers text as a file.
 * @param {string} label
 * @param {string} name
 * @param {() => string} content
 * @param {string} type
 */
export function saveTextButton(label, name, content, type) {
  return button(
    label,
    () => {
      const link = el('a', { download: name });
      link.href = URL.createObjectURL(new Blob([content()], { type }));
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    },
    'quiet',
  );
}
