/**
 * `node benches/page-long.mjs`: what the page keeps. Chromium's memory over hundreds of compactions in one page, and at
 * its peak over one disk of 40 GiB with 8 GiB stored, by each way of saving.
 *
 *   node benches/page-long.mjs [many|large …] [--runs=300]
 *
 * Memory is the sum of the proportional set sizes (PSS) of all of the browser's processes: what is shared counts once.
 * Ends with an error where the page grows. Linux only, since that is where processes tell this.
 */
/* global document, window -- in what runs inside the page */
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import puppeteer from 'puppeteer-core';
import { Stop, main, say } from '../scripts/lib/console.mjs';
import { inRoot } from '../scripts/lib/paths.mjs';
import { serve } from '../scripts/lib/server.mjs';
import { chromium } from '../tests/e2e/support/programs.mjs';
import { writeDynamicVhd } from '../tests/support/vhd.mjs';

/** @import { Browser, CDPSession, Page } from 'puppeteer-core' */
/** @typedef {'Download' | 'Save to a folder…'} Way the label of its button */
/** @typedef {{ heap: number, nodes: number, listeners: number, workers: number, browser: number, pages: number }} Kept bytes and counts */

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const PATIENCE = 1_200_000;
/** The first runs fill caches and compile; growth counts from here on. */
const SETTLED = 1 / 6;
/** How much more than that it may be in the end: measured, runs differ by a tenth of this. */
const HEAP_SLACK = MIB;
const MEMORY_SLACK = 40 * MIB;

/** Without a window nobody can pick a folder: it is one of the browser's own storage, and what is in it goes. */
const ownFolder = () => {
  window.showDirectoryPicker = async () => {
    const root = await navigator.storage.getDirectory();
    await root.removeEntry('new-images', { recursive: true }).catch(() => {});
    return root.getDirectoryHandle('new-images', { create: true });
  };
};

/** The memory of a browser's processes, in bytes. @param {number} root the first process */
function memoryOf(root) {
  /** @type {Map<number, number[]>} */
  const children = new Map();
  for (const id of readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)) {
    try {
      // The name in brackets may hold anything, and so is skipped.
      const [, parent] = readFileSync(`/proc/${id}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
      children.set(Number(parent), [...(children.get(Number(parent)) ?? []), id]);
    } catch {
      // It ended meanwhile.
    }
  }
  /** @param {number} id @returns {number} */
  const below = (id) => (children.get(id) ?? []).reduce((sum, child) => sum + own(child) + below(child), 0);
  return { browser: own(root), pages: below(root) };
}

/** @param {number} id */
function own(id) {
  try {
    return Number(/^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${id}/smaps_rollup`, 'latin1'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** @param {(browser: Browser, page: Page, folder: string) => Promise<void>} task */
async function inPage(task) {
  const folder = mkdtempSync(join(tmpdir(), 'vhd-compactor-long-bench-'));
  const { address, server } = await serve(inRoot('dist'), 0);
  const browser = await puppeteer.launch({
    executablePath: chromium ?? undefined,
    headless: true,
    protocolTimeout: PATIENCE,
    args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--no-first-run'],
  });
  try {
    const session = await browser.target().createCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: folder });
    const page = await browser.newPage();
    await page.evaluateOnNewDocument(ownFolder);
    await page.goto(address);
    await task(browser, page, folder);
  } finally {
    await browser.close();
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** @param {Page} page @param {string} image */
async function give(page, image) {
  const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (await page.$('#files'));
  await input.uploadFile(image);
  await until(page, 'Ready');
}

/** Waits for a word on the card. @param {Page} page @param {string[]} words */
async function until(page, ...words) {
  await page.waitForFunction(
    (wanted) => [...wanted, 'Stopped'].includes(document.querySelector('.badge')?.textContent ?? ''),
    { timeout: PATIENCE, polling: 50 },
    words,
  );
  if (!words.includes(await page.$eval('.badge', (badge) => badge.textContent ?? ''))) {
    throw new Error(await page.$eval('.card', (card) => /** @type {HTMLElement} */ (card).innerText));
  }
}

/** @param {Page} page @param {string} label */
const press = (page, label) =>
  page.waitForFunction(
    (wanted) => {
      const button = [...document.querySelectorAll('button')].find((one) => one.textContent === wanted);
      button?.click();
      return button !== undefined;
    },
    { timeout: PATIENCE },
    label,
  );

/** Waits until every download is whole, and takes them away. @param {string} folder @param {string} image */
async function clear(folder, image) {
  for (let others = []; ; await sleep(50)) {
    others = readdirSync(folder).filter((name) => name !== image);
    if (others.some((name) => name.endsWith('.crdownload'))) continue;
    for (const name of others) rmSync(join(folder, name));
    return;
  }
}

/** What is kept once everything was collected. @param {Browser} browser @param {Page} page @param {CDPSession} session @returns {Promise<Kept>} */
async function kept(browser, page, session) {
  await sleep(1000);
  await session.send('HeapProfiler.collectGarbage');
  await sleep(500);
  const { JSHeapUsedSize = 0, Nodes = 0, JSEventListeners = 0 } = await page.metrics();
  return {
    heap: JSHeapUsedSize,
    nodes: Nodes,
    listeners: JSEventListeners,
    workers: page.workers().length,
    ...memoryOf(browser.process()?.pid ?? 0),
  };
}

const mib = (/** @type {number} */ bytes) => (bytes / MIB).toFixed(1);

/** So many compactions of one image in one page, by turns as a download and to a folder. @param {number} runs */
async function many(runs) {
  console.log(
    '| after | heap of the page, MiB | nodes | listeners | workers | browser, MiB | its pages, MiB |\n|---|---|---|---|---|---|---|',
  );
  await inPage(async (browser, page, folder) => {
    const image = join(folder, 'image.vhd');
    const blocks = Object.fromEntries(Array.from({ length: 16 }, (_, n) => [n * 3, Buffer.from([n % 2])]));
    writeDynamicVhd(image, { size: 128 * MIB, blocks });
    const session = await page.createCDPSession();
    await give(page, image);
    /** @type {Map<number, Kept>} */
    const seen = new Map();
    for (let run = 1; run <= runs; run += 1) {
      const toFolder = run % 2 === 0;
      await press(page, toFolder ? 'Save to a folder…' : 'Download');
      await until(page, toFolder ? 'Saved' : 'Made');
      await press(page, 'Back to the options');
      await until(page, 'Ready');
      await clear(folder, 'image.vhd');
      if (run % Math.ceil(runs * SETTLED) !== 0 && run !== runs) continue;
      const now = await kept(browser, page, session);
      seen.set(run, now);
      console.log(
        `| ${run} | ${mib(now.heap)} | ${now.nodes} | ${now.listeners} | ${now.workers} | ${mib(now.browser)} | ${mib(now.pages)} |`,
      );
    }
    const [first, last] = [[...seen.values()][0], [...seen.values()].at(-1)];
    if (!first || !last || first === last) return;
    const grown = [
      last.heap > first.heap + HEAP_SLACK && 'heap',
      last.nodes > first.nodes * 1.1 && 'nodes',
      last.listeners > first.listeners * 1.1 && 'listeners',
      last.workers > first.workers && 'workers',
      last.browser > first.browser + MEMORY_SLACK && 'the browser',
      last.pages > first.pages + MEMORY_SLACK && 'its pages',
    ].filter(Boolean);
    if (grown.length > 0) throw new Stop(`It grows: ${grown.join(', ')}.`);
  });
}

/** A disk of 40 GiB of which 9 are stored, one of them zeros: seconds, and the most memory. @param {Way} way */
async function large(way) {
  await inPage(async (browser, page, folder) => {
    const image = join(folder, 'image.vhd');
    // Each stored block is a hole of the source but for one byte: what is measured is the page, not the drive.
    const blocks = Object.fromEntries(Array.from({ length: 4608 }, (_, n) => [n * 4, Buffer.from([n % 9 ? 1 : 0])]));
    writeDynamicVhd(image, { size: 40 * GIB, blocks });
    await give(page, image);
    await sleep(1000);
    const before = memoryOf(browser.process()?.pid ?? 0);
    const most = { ...before };
    let isOver = false;
    const watching = (async () => {
      while (!isOver) {
        const now = memoryOf(browser.process()?.pid ?? 0);
        most.browser = Math.max(most.browser, now.browser);
        most.pages = Math.max(most.pages, now.pages);
        await sleep(250);
      }
    })();
    const started = performance.now();
    try {
      await press(page, way);
      await until(page, 'Made', 'Saved');
      if (way === 'Download') await clear(folder, 'image.vhd');
    } finally {
      isOver = true;
      await watching;
    }
    const seconds = (performance.now() - started) / 1000;
    console.log(
      `| ${way} | ${seconds.toFixed(0)} | ${mib(before.browser)} | ${mib(most.browser)} | ${mib(before.pages)} | ${mib(most.pages)} |`,
    );
  });
}

await main(async () => {
  const { values, positionals } = parseArgs({
    options: { runs: { type: 'string', default: '300' } },
    allowPositionals: true,
  });
  if (!chromium) throw new Stop('Chromium is not installed.');
  if (process.platform !== 'linux') throw new Stop('Only Linux tells what its processes share.');
  say(`${cpus().length} × ${cpus()[0]?.model}; load ${loadavg()[0]}`);
  const wanted = (/** @type {string} */ part) => positionals.length === 0 || positionals.includes(part);
  if (wanted('many')) await many(Number(values.runs));
  if (!wanted('large')) return;
  console.log(
    '\n| way | seconds | browser before, MiB | at most | its pages before, MiB | at most |\n|---|---|---|---|---|---|',
  );
  for (const way of /** @type {const} */ (['Download', 'Save to a folder…'])) await large(way);
});
