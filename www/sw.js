/**
 * The service worker: keeps the whole page, so that it works without a network. A new version waits until the
 * page says that nothing runs, and keeps the files of the version before it for tabs that still show that one.
 */

import { cacheNames } from 'workbox-core';
import { cleanupOutdatedCaches, precacheAndRoute } from 'workbox-precaching';

const PREVIOUS = 'previous-version';
/** Files whose name carries a hash: nothing but this very version can be under that name. */
const HASHED = /\.[0-9a-f]{12,}\.(js|css|wasm)$/;

cleanupOutdatedCaches();
// @ts-expect-error The build replaces this very expression with the list of the page's files.
precacheAndRoute(self.__WB_MANIFEST);

self.addEventListener('install', (event) => {
  /** @type {any} */ (event).waitUntil(keepPrevious());
});

// What the new version does not have is looked for in the old one: a tab that was open before the update starts
// a new engine with the old one's files.
self.addEventListener('fetch', (event) => {
  const { request } = /** @type {any} */ (event);
  if (request.method !== 'GET' || !HASHED.test(new URL(request.url).pathname)) return;
  /** @type {any} */ (event).respondWith(caches.match(request).then((kept) => kept ?? fetch(request)));
});

self.addEventListener('message', (event) => {
  // @ts-expect-error The DOM's types know no service worker.
  if (event.data === 'use-now') void self.skipWaiting();
});

/** Copies the files of the version that is in use, before this one takes its place and removes them. */
async function keepPrevious() {
  const current = await caches.open(cacheNames.precache);
  const files = (await current.keys()).filter(({ url }) => HASHED.test(new URL(url).pathname));
  if (files.length === 0) return;
  await caches.delete(PREVIOUS);
  const previous = await caches.open(PREVIOUS);
  for (const file of files) {
    const answer = await current.match(file);
    if (answer) await previous.put(file, answer);
  }
}
