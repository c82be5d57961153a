/**
 * What a download of many parts costs Firefox, by each way of handing it over: seconds until the file is whole,
 * and the memory of the parent process at its peak.
 *
 *   node benches/firefox-download.mjs [MB, by default 1200]
 */
/* global document, Worker -- in what runs inside the page */
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomFillSync } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';

const MB = 1e6;
const megabytes = Number(process.argv[2] ?? 1200);
const folder = mkdtempSync(join(tmpdir(), 'vhd-compactor-firefox-bench-'));
const source = join(folder, 'source.bin');

/** Hands over a header and `count` slices of the chosen file. Runs in the page. */
async function save(/** @type {string} */ way, /** @type {number} */ count) {
  const input = /** @type {HTMLInputElement} */ (document.getElementById('file'));
  const file = /** @type {File} */ (input.files?.[0]);
  const length = Math.floor(file.size / count);
  const slices = Array.from({ length: count }, (_, n) => file.slice(n * length, (n + 1) * length - 512));
  let made = new Blob([new Uint8Array(4096), ...slices]);
  const { size } = made;
  if (way === 'storage') {
    const worker = new Worker('worker.js');
    made = await new Promise((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.postMessage(made);
    });
  }
  const link = document.createElement('a');
  link.download = 'out.bin';
  if (way === 'service worker') {
    await navigator.serviceWorker.register('sw.js');
    await navigator.serviceWorker.ready;
    if (!navigator.serviceWorker.controller) {
      await new Promise((resolve) => {
        navigator.serviceWorker.addEventListener('controllerchange', resolve, { once: true });
      });
    }
    const { port1, port2 } = new MessageChannel();
    const heard = new Promise((resolve) => {
      port1.onmessage = resolve;
    });
    navigator.serviceWorker.controller?.postMessage(made, [port2]);
    await heard;
    link.href = 'stream/out.bin';
  } else {
    link.href = URL.createObjectURL(made);
  }
  document.body.append(link);
  link.click();
  return size;
}

const WORKER = `onmessage = async ({ data }) => {
  const handle = await (await navigator.storage.getDirectory()).getFileHandle('out', { create: true });
  const access = await handle.createSyncAccessHandle();
  const run = 16 << 20;
  for (let at = 0; at < data.size; at += run) {
    access.write(new Uint8Array(new FileReaderSync().readAsArrayBuffer(data.slice(at, at + run))), { at });
  }
  access.close();
  postMessage(await handle.getFile());
};`;
const SERVICE_WORKER = `let made;
addEventListener('install', () => skipWaiting());
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('message', ({ data, ports: [port] }) => { made = data; port.postMessage('heard'); });
addEventListener('fetch', (event) => {
  if (!event.request.url.includes('/stream/')) return;
  const headers = { 'Content-Disposition': 'attachment', 'Content-Length': String(made.size) };
  event.respondWith(new Response(made.stream(), { headers }));
});`;
/** @type {Record<string, [string, string]>} */
const PAGES = {
  '/': ['text/html', '<!doctype html><title>bench</title><input type="file" id="file">'],
  '/worker.js': ['text/javascript', WORKER],
  '/sw.js': ['text/javascript', SERVICE_WORKER],
};

/** Megabytes that a process holds. @param {number} pid */
const memoryOf = (pid) => (Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024) / MB;

/** @param {string} address @param {string} way @param {number} count */
async function measure(address, way, count) {
  const home = mkdtempSync(join(folder, 'home-'));
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
    headless: true,
    env: { ...process.env, HOME: home },
    extraPrefsFirefox: {
      'browser.download.dir': home,
      'browser.download.folderList': 2,
      'browser.helperApps.neverAsk.saveToDisk': 'application/octet-stream',
    },
  });
  try {
    const pid = browser.process()?.pid ?? 0;
    const page = await browser.newPage();
    await page.goto(address);
    const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (await page.$('#file'));
    await input.uploadFile(source);
    await sleep(500);
    const before = memoryOf(pid);
    let peak = before;
    const watch = setInterval(() => {
      peak = Math.max(peak, memoryOf(pid));
    }, 100);
    const started = Date.now();
    const size = await page.evaluate(save, way, count);
    const whole = () =>
      statSync(join(home, 'out.bin'), { throwIfNoEntry: false })?.size === size &&
      !readdirSync(home).some((name) => name.endsWith('.part'));
    while (!whole() && Date.now() - started < 180_000) await sleep(100);
    clearInterval(watch);
    const took = whole() ? `${((Date.now() - started) / 1000).toFixed(1)} s` : 'not within 180 s';
    console.log(
      `${way}, ${count} slices: ${took}, ${Math.round(before)} MB before, ${Math.round(peak)} MB at the peak`,
    );
  } finally {
    await browser.close();
  }
}

const server = createServer(({ url }, response) => {
  const [type, body] = PAGES[url ?? ''] ?? [];
  if (type) response.writeHead(200, { 'Content-Type': type }).end(body);
  else response.writeHead(404).end();
}).listen(0, 'localhost');
try {
  const part = Buffer.alloc(10 * MB);
  for (let written = 0; written < megabytes; written += 10) writeFileSync(source, randomFillSync(part), { flag: 'a' });
  await new Promise((resolve) => {
    server.once('listening', resolve);
    if (server.listening) resolve(undefined);
  });
  const address = `http://localhost:${/** @type {import('node:net').AddressInfo} */ (server.address()).port}/`;
  for (const [way, count] of /** @type {const} */ ([
    ['one Blob', 512],
    ['one Blob', 7],
    ['service worker', 512],
    ['storage', 512],
  ])) {
    await measure(address, way, count);
  }
} finally {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}
