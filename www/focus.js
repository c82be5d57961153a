/**
 * The focus never falls to the body: where what had it was hidden, disabled or taken away, it goes to the
 * nearest heading or landmark, so that a person with a keyboard goes on where they were.
 */

/** @type {HTMLElement[]} what encloses the control that has the focus, inside out */
let around = [];

export function keepFocus() {
  document.addEventListener('focusin', ({ target }) => {
    around = [];
    for (let one = /** @type {HTMLElement | null} */ (target); one; one = one.parentElement) around.push(one);
  });
  const look = () => {
    if (document.activeElement !== document.body || around.length === 0 || !document.hasFocus()) return;
    const [had] = around;
    // A click beside everything takes the focus away rightly.
    if (had && isUsable(had)) return;
    home()?.focus({ preventScroll: true });
  };
  new MutationObserver(() => queueMicrotask(look)).observe(document.body, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ['hidden', 'disabled', 'open'],
  });
}

/** The heading of what still stands around the lost control, or the page's main part. */
function home() {
  for (const one of around) {
    if (!one.isConnected || one === document.body) continue;
    const heading = /** @type {HTMLElement | null} */ (one.querySelector('[tabindex="-1"]'));
    if (heading && isUsable(heading)) return heading;
    if (one.tabIndex === -1 && one.hasAttribute('tabindex') && isUsable(one)) return one;
  }
  return document.getElementById('main');
}

/** @param {HTMLElement} element */
const isUsable = (element) => element.isConnected && element.checkVisibility() && !element.matches(':disabled');
