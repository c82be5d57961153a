/** The service worker: the page works offline, and a new version waits until nothing runs. */

import { plural } from '../format.js';
import { whenIdle } from '../guard.js';
import { serviceWorkerUrl } from '../trusted.js';
import { byId } from './dom.js';

/**
 * @param {object} page
 * @param {() => boolean} page.hasWork whether anything on the page would be lost by loading it anew
 * @param {() => number} page.unsaved how many new images were made and are not known to be saved
 */
export async function mountUpdates({ hasWork, unsaved }) {
  if (!('serviceWorker' in navigator)) return;
  const hadController = Boolean(navigator.serviceWorker.controller);
  let asked = false;
  navigator.serviceWorker.addEventListener('controllerchange', () => {
    if (hadController && (asked || !hasWork())) location.reload();
  });
  void navigator.serviceWorker.ready.then(() => {
    byId('offline-state').textContent = 'works offline';
  });

  // Without one (some private windows refuse it) the page works as well, with a network.
  const registration = await navigator.serviceWorker.register(serviceWorkerUrl()).catch(() => null);
  if (!registration) return;
  const offer = () => {
    const waiting = registration.waiting;
    if (!waiting || !navigator.serviceWorker.controller) return;
    const toast = byId('update');
    toast.hidden = false;
    byId('update-later').onclick = () => {
      toast.hidden = true;
    };
    let agreed = 0;
    const use = () => {
      // A run may have ended meanwhile: what it made is asked about before it is taken away.
      if (unsaved() > agreed) {
        agreed = unsaved();
        byId('update-text').textContent =
          `${plural(agreed, 'new image')} on this page may not be saved yet, and would be gone. Reload all the same?`;
        byId('update-now').textContent = 'Reload';
        toast.hidden = false;
        return;
      }
      asked = true;
      waiting.postMessage('use-now');
    };
    byId('update-now').onclick = () => {
      toast.hidden = true;
      void whenIdle(use);
    };
  };
  offer();
  registration.addEventListener('updatefound', () => {
    registration.installing?.addEventListener('statechange', offer);
  });
}
