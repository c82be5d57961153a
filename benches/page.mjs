/**
 * `node benches/page.mjs`: the page beside its own browser. From the moment a file is chosen until the new image is whole
 * and compared, against the same browser saving as many bytes of the same file in 512 slices, by the same way: a download
 * or a folder. By turns, each in a browser of its own.
 *
 *   node benches/page.mjs [chromium|firefox …] [--image=b] [--runs=5] [--phases]
 */
/* global document, window -- in what runs inside the page */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { cpus, loadavg, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import puppeteer from 'puppeteer-core';
import { Stop, main, say } from '../scripts/lib/console.mjs';
import { inRoot } from '../scripts/lib/paths.mjs';
import { serve } from '../scripts/lib/server.mjs';
import { ownFolder } from '../tests/e2e/support/own-folder.mjs';
import { chromium, firefox } from '../tests/e2e/support/programs.mjs';
import { cases } from './cases.mjs';
import { median, medianOf, spread } from './measure.mjs';

/** @import { Browser, ElementHandle, Page } from 'puppeteer-core' */
/** @typedef {{ seconds: number, cpu: number, peak: number, ready?: number, phases?: [string, number][] }} Cost */

const SLICES = 512;
const PATIENCE = 300_000;
/** Firefox has no folder picker. @type {['chromium' | 'firefox', 'download' | 'folder'][]} */
const COMBINATIONS = [
  ['chromium', 'download'],
  ['chromium', 'folder'],
  ['firefox', 'download'],
];

/** Notes when the page's worker enters each phase of a job. */
const notePhases = () => {
  /** @type {[string, number][]} */
  const phases = [];
  Object.assign(window, { phases });
  window.Worker = class extends window.Worker {
    constructor(/** @type {string | URL} */ url, /** @type {WorkerOptions | undefined} */ options) {
      super(url, options);
      this.addEventListener('message', ({ data }) => {
        const phase = data?.event === 'progress' ? data.progress.phase : null;
        if (phase && phases.at(-1)?.[0] !== phase) phases.push([phase, performance.now()]);
      });
    }
  };
};

/** Saves `bytes` bytes of the chosen file in slices, by the browser alone. Runs in the page. */
async function saveAlone(
  /** @type {'download' | 'folder'} */ way,
  /** @type {number} */ bytes,
  /** @type {number} */ count,
) {
  const file = /** @type {File} */ (/** @type {HTMLInputElement} */ (document.getElementById('files')).files?.[0]);
  const [stride, length] = [Math.floor(file.size / count), Math.floor(bytes / count)];
  const slices = Array.from({ length: count }, (_, n) => file.slice(n * stride, n * stride + Math.min(stride, length)));
  if (way === 'download') {
    const link = document.createElement('a');
    link.download = 'alone.bin';
    link.href = URL.createObjectURL(new Blob(slices));
    link.click();
    return;
  }
  const root = await navigator.storage.getDirectory();
  const writable = await (await root.getFileHandle('alone.bin', { create: true })).createWritable();
  for (const slice of slices) await writable.write(slice);
  await writable.close();
}

/** The median seconds of each phase of the page's job. @param {Cost[]} costs */
function phasesOf(costs) {
  const phases = costs.map(({ phases: entered = [] }) =>
    entered.map(([phase, at], n) => [phase, ((entered[n + 1]?.[1] ?? at) - at) / 1000]),
  );
  const names = new Set(phases.flat().map(([phase]) => phase));
  return [...names].map((name) => {
    const seconds = phases.map((one) => {
      const times = one.filter(([phase]) => phase === name).map(([, time]) => Number(time));
      return times.reduce((sum, time) => sum + time, 0);
    });
    return `${name} ${medianOf(seconds).toFixed(2)}`;
  });
}

/** @param {'chromium' | 'firefox'} name @param {string} downloads */
async function launch(name, downloads) {
  const browser = await puppeteer.launch(
    name === 'firefox'
      ? {
          browser: 'firefox',
          executablePath: firefox ?? undefined,
          headless: true,
          // Firefox refuses to run as root with another's home.
          env: { ...process.env, HOME: downloads },
          extraPrefsFirefox: {
            'browser.download.dir': downloads,
            'browser.download.folderList': 2,
            'browser.download.useDownloadDir': true,
            'browser.helperApps.neverAsk.saveToDisk': 'application/octet-stream',
          },
        }
      : {
          executablePath: chromium ?? undefined,
          headless: true,
          args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--no-first-run'],
        },
  );
  if (name === 'chromium') {
    const session = await browser.target().createCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: downloads });
  }
  return browser;
}

/** Waits until a download is whole, and gives its length. @param {string} folder @param {string} name */
async function arrival(folder, name) {
  const unfinished = () => readdirSync(folder).some((one) => /\.(?:part|crdownload)$/.test(one));
  const size = () => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
  for (const end = Date.now() + PATIENCE; size() === 0 || unfinished();) {
    if (Date.now() > end) throw new Error(`${name} is not whole after ${PATIENCE / 1000} s`);
    await sleep(20);
  }
  return size();
}

/** @param {Page} page @param {string} image */
const give = async (page, image) =>
  /** @type {ElementHandle<HTMLInputElement>} */ (await page.waitForSelector('#files')).uploadFile(image);

/** Waits for a word on the card. @param {Page} page @param {string[]} words */
const until = (page, ...words) =>
  page.waitForFunction(
    (wanted) => wanted.includes(document.querySelector('.badge')?.textContent ?? ''),
    { timeout: PATIENCE, polling: 20 },
    words,
  );

/**
 * The page: choose, wait for "Ready", save, until the file is whole and the page has said so.
 * @param {Browser} browser @param {string} address @param {string} image @param {'download' | 'folder'} way
 * @param {string} downloads @returns {Promise<Cost & { size: number }>}
 */
async function ours(browser, address, image, way, downloads) {
  const page = await browser.newPage();
  if (way === 'folder') await page.evaluateOnNewDocument(ownFolder);
  await page.evaluateOnNewDocument(notePhases);
  await page.goto(address);
  await sleep(1000);
  const started = performance.now();
  await give(page, image);
  await until(page, 'Ready');
  const ready = (performance.now() - started) / 1000;
  const label = way === 'folder' ? 'Save to a folder…' : 'Download';
  await page.$$eval(
    '.save .buttons button',
    (buttons, wanted) => buttons.find((one) => one.textContent === wanted)?.click(),
    label,
  );
  let size = 0;
  if (way === 'folder') {
    await until(page, 'Saved');
    size = await page.evaluate(async () => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('new-images');
      for await (const handle of folder.values()) {
        return (await /** @type {FileSystemFileHandle} */ (handle).getFile()).size;
      }
      return 0;
    });
  } else {
    const name = basename(image).replace(/(\.\w+)$/, '-compacted$1');
    [size] = await Promise.all([arrival(downloads, name), until(page, 'Made', 'Saved')]);
  }
  const seconds = (performance.now() - started) / 1000;
  const phases = await page.evaluate(
    () => /** @type {{ phases: [string, number][] }} */ (/** @type {unknown} */ (window)).phases,
  );
  return { seconds, cpu: 0, peak: 0, ready, size, phases };
}

/**
 * The browser alone.
 * @param {Browser} browser @param {string} address @param {string} image @param {'download' | 'folder'} way
 * @param {string} downloads @param {number} bytes @returns {Promise<Cost>}
 */
async function alone(browser, address, image, way, downloads, bytes) {
  const page = await browser.newPage();
  await page.goto(address);
  await sleep(1000);
  const started = performance.now();
  await give(page, image);
  await page.evaluate(saveAlone, way, bytes, SLICES);
  if (way === 'download') await arrival(downloads, 'alone.bin');
  return { seconds: (performance.now() - started) / 1000, cpu: 0, peak: 0 };
}

/** Runs a task in a fresh browser. @template T @param {'chromium' | 'firefox'} name @param {(browser: Browser, downloads: string) => Promise<T>} task */
async function inBrowser(name, task) {
  const downloads = mkdtempSync(join(tmpdir(), 'vhd-compactor-page-bench-'));
  const browser = await launch(name, downloads);
  try {
    return await task(browser, downloads);
  } finally {
    await browser.close();
    rmSync(downloads, { recursive: true, force: true, maxRetries: 5 });
    spawnSync('sync');
  }
}

const cell = (/** @type {Cost[]} */ costs) => `${median(costs, 'seconds').toFixed(2)} s [${spread(costs, 'seconds')}]`;

await main(async () => {
  const { values, positionals } = parseArgs({
    options: {
      runs: { type: 'string', default: '5' },
      image: { type: 'string', default: 'b' },
      phases: { type: 'boolean' },
    },
    allowPositionals: true,
  });
  const one = cases.find(({ name }) => name.startsWith(`${values.image}:`));
  if (!one) throw new Stop(`There is no image ${values.image}.`);
  if (one.skip) throw new Stop(`The image needs a program: ${one.skip}`);
  const folder = mkdtempSync(join(tmpdir(), 'vhd-compactor-page-bench-'));
  const { address, server } = await serve(inRoot('dist'), 0);
  const bare = createServer((_, response) => {
    response
      .writeHead(200, { 'Content-Type': 'text/html' })
      .end('<!doctype html><title>bench</title><input type="file" id="files">');
  }).listen(0, 'localhost');
  await new Promise((resolve) => void bare.once('listening', resolve));
  try {
    const image = one.make(folder);
    spawnSync('sync');
    const { port } = /** @type {import('node:net').AddressInfo} */ (bare.address());
    console.log(
      `${cpus().length} × ${cpus()[0]?.model}; ${one.name}; medians of ${values.runs} runs by turns [least–most]; load ${loadavg()[0]}\n`,
    );
    console.log(
      '| browser | way | page, compared | of it until "Ready" | browser alone | ratio |\n|---|---|---|---|---|---|',
    );
    for (const [name, way] of COMBINATIONS) {
      if (positionals.length > 0 && !positionals.includes(name)) continue;
      if (!{ chromium, firefox }[name]) {
        say(`skipped: ${name} is not installed`);
        continue;
      }
      /** @type {Cost[]} */
      const page = [];
      /** @type {Cost[]} */
      const browser = [];
      for (let run = 0; run < Number(values.runs); run += 1) {
        const { size, ...cost } = await inBrowser(name, (it, downloads) => ours(it, address, image, way, downloads));
        page.push(cost);
        const place = `http://localhost:${port}/`;
        browser.push(await inBrowser(name, (it, downloads) => alone(it, place, image, way, downloads, size)));
      }
      const ready = page.map((cost) => ({ ...cost, seconds: cost.ready ?? 0 }));
      const ratio = (median(page, 'seconds') / median(browser, 'seconds')).toFixed(2);
      console.log(`| ${name} | ${way} | ${cell(page)} | ${cell(ready)} | ${cell(browser)} | ${ratio} |`);
      if (values.phases) say(`  ${name}, ${way}, seconds in each phase: ${phasesOf(page).join(', ')}`);
    }
  } finally {
    server.closeAllConnections();
    server.close();
    bare.closeAllConnections();
    bare.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
