/** "Where is my disk?" before a run, and "what next?" after it, from one table of products. */

import { PRODUCTS, productsOf } from '../products.js';
import { byId, copyable, el, prose } from './dom.js';

/** @import { InspectReport } from '../types.js' */
/** @import { Product, Step } from '../products.js' */

/** Fills the line of products; each shows its disks and how to stop it, one at a time. */
export function mountWhere() {
  const panel = byId('where-panel');
  const buttons = PRODUCTS.map((product) => {
    const button = el(
      'button',
      { type: 'button', class: 'chip-button', 'aria-expanded': 'false', 'aria-controls': panel.id },
      product.name,
    );
    button.addEventListener('click', () => {
      const open = button.getAttribute('aria-expanded') === 'true';
      for (const one of buttons) one.setAttribute('aria-expanded', String(one === button && !open));
      panel.replaceChildren(...(open ? [] : [about(product)]));
    });
    return button;
  });
  byId('where-products').replaceChildren(...buttons);
}

/** @param {Product} product */
function about({ name, stop, disks, find = [], note }) {
  return el(
    'div',
    { class: 'where-body' },
    el('h3', {}, `First stop ${name}`),
    steps(stop),
    el('h3', {}, disks.length === 1 ? 'Then find its disk' : 'Then find its disks'),
    el(
      'ul',
      { class: 'disks' },
      ...disks.map(({ file, holds, paths }) =>
        el('li', {}, el('code', {}, file), ', ', ...prose(holds), ...paths.map(copyable)),
      ),
    ),
    ...find.flatMap(step),
    note ? el('p', { class: 'hint' }, ...prose(note)) : null,
    disks.some(({ paths }) => paths.length > 0)
      ? el(
          'p',
          { class: 'hint' },
          'Paste a path into the address line of the file dialog: some of these folders are hidden.',
        )
      : null,
  );
}

/**
 * The next steps for an image: those of its product are open, the others are folded away together.
 * @param {string} name
 * @param {InspectReport} report
 */
export function nextSteps(name, report) {
  const likely = productsOf(name, report);
  const others = PRODUCTS.filter((product) => !likely.includes(product));
  const rest = others.map((product) => swap(product, false));
  return [
    ...likely.map((product, index) => swap(product, index === 0)),
    el(
      'details',
      { class: 'others' },
      el('summary', {}, likely.length > 0 ? 'Another program' : 'How it goes with each program'),
      ...rest,
    ),
  ];
}

/**
 * @param {Product} product
 * @param {boolean} open
 */
const swap = ({ name, next }, open) => el('details', { open }, el('summary', {}, name), steps(next));

/** @param {Step[]} all */
const steps = (all) => el('ol', {}, ...all.map((one) => el('li', {}, ...step(one))));

/** @param {Step} one */
const step = ({ say, command }) => [el('span', {}, ...prose(say)), command ? copyable(command) : null];
