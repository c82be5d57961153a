/**
 * The service worker: keeps the whole page, so that it works without a network. A new version waits
 * until the page says that nothing runs.
 */

import { cleanupOutdatedCaches, precacheAndRoute } from 'workbox-precaching';

cleanupOutdatedCaches();
// @ts-expect-error The build replaces this very expression with the list of the page's files.
precacheAndRoute(self.__WB_MANIFEST);

self.addEventListener('message', (event) => {
  // @ts-expect-error The DOM's types know no service worker.
  if (event.data === 'use-now') void self.skipWaiting();
});
