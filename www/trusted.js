/** The page's only say in which script may be loaded: its own service worker. */

const rules = { createScriptURL: () => 'sw.js' };

/**
 * The address of the service worker, in the form that the page's policy (Trusted Types) demands.
 * @returns {string}
 */
export function serviceWorkerUrl() {
  const { trustedTypes } = /** @type {any} */ (window);
  return trustedTypes ? trustedTypes.createPolicy('vhd-compactor', rules).createScriptURL('') : rules.createScriptURL();
}
