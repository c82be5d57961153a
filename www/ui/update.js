/** The service worker: the page works offline, and a new version waits until nothing runs. */

import { whenIdle } from '../guard.js';
import { serviceWorkerUrl } from '../trusted.js';
import { byId } from './dom.js';

/** @param {() => boolean} hasWork whether anything on the page would be lost by loading it anew */
export async function mountUpdates(hasWork) {
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
    byId('update-now').onclick = () => {
      asked = true;
      toast.hidden = true;
      void whenIdle(() => waiting.postMessage('use-now'));
    };
  };
  offer();
  registration.addEventListener('updatefound', () => {
    registration.installing?.addEventListener('statechange', offer);
  });
}
