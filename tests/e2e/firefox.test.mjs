/** Another engine: stock Firefox, which has no pickers and no handles. Choose, download, done. */
import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import { serve } from '../../scripts/lib/server.mjs';
import * as images from './support/images.mjs';
import { dist, firefox, missing, qemuImg, sameDisk } from './support/programs.mjs';

/** Firefox with the page in it; everything is cleared up at the end. @param {import('node:test').TestContext} t */
async function openFirefox(t) {
  const folder = await mkdtemp(join(tmpdir(), 'vhd-compactor-firefox-'));
  const { address, server } = await serve(dist, 0);
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: firefox ?? undefined,
    headless: true,
    // Firefox refuses to run as root with another's home.
    env: { ...process.env, HOME: folder },
    extraPrefsFirefox: {
      'browser.download.dir': folder,
      'browser.download.folderList': 2,
      'browser.download.useDownloadDir': true,
      'browser.helperApps.neverAsk.saveToDisk': 'application/octet-stream',
    },
  });
  t.after(async () => {
    await browser.close();
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  const page = await browser.newPage();
  /** @type {string[]} */
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(message.text());
  });
  await page.goto(address);
  const until = async (/** @type {string} */ state) =>
    page.waitForFunction((wanted) => document.querySelector('.badge')?.textContent === wanted, {}, state);
  const give = async (/** @type {string} */ path) => {
    const input = await page.$('#files');
    await /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (input).uploadFile(path);
  };
  /** Waits for a file to be whole. @param {string} name */
  const arrival = async (name) => {
    const result = join(folder, name);
    // Firefox holds the name with an empty file until the download is complete.
    const size = () => statSync(result, { throwIfNoEntry: false })?.size ?? 0;
    for (let tries = 600; tries > 0 && (size() === 0 || existsSync(`${result}.part`)); tries--) await sleep(100);
    return { result, size: size() };
  };
  return { page, folder, faults, until, give, arrival };
}

test(
  'Firefox: choose a file, download the new image',
  { skip: missing({ Firefox: firefox }), timeout: 120_000 },
  async (t) => {
    const { page, folder, faults, until, give, arrival } = await openFirefox(t);
    const source = join(folder, 'disk.vhd');
    await writeFile(source, images.base());
    await give(source);
    await until('Ready');
    const offered = await page.$$eval('.save .buttons button', (buttons) =>
      buttons.filter((one) => !(/** @type {HTMLElement} */ (one).hidden)).map((one) => one.textContent),
    );
    assert.deepEqual(offered, ['Download'], 'no folder is offered where the browser cannot');
    await page.click('.save .primary');
    await until('Made');
    const { result, size } = await arrival('disk-compacted.vhd');
    assert.ok(size > 4 << 20 && size < statSync(source).size / 2, `${size} bytes`);
    if (qemuImg) sameDisk(source, result, 'vpc');
    assert.deepEqual(faults, []);
  },
);

test(
  'Firefox: a large download goes through the browser’s storage, and leaves nothing there',
  { skip: missing({ Firefox: firefox }), timeout: 240_000 },
  async (t) => {
    const { page, folder, faults, until, give, arrival } = await openFirefox(t);
    const source = join(folder, 'large.vhd');
    await writeFile(source, images.large(160 << 20));
    await give(source);
    await until('Ready');
    await page.evaluate(() => {
      /** @type {HTMLElement | null} */ (document.querySelector('input[type=radio][value=yes]'))?.click();
    });
    await page.waitForFunction(
      () => !(/** @type {HTMLButtonElement} */ (document.querySelector('.save .primary')).disabled),
    );
    const hint = await page.$eval('.save .hint', (element) => element.textContent);
    assert.match(hint ?? '', /keeps as much again in its own storage/);
    await page.click('.save .primary');
    await until('Made');
    const staged = () =>
      page.evaluate(async () => {
        const sizes = [];
        const root = await navigator.storage.getDirectory();
        const kept = await root.getDirectoryHandle('staged', { create: true });
        for await (const handle of kept.values()) {
          sizes.push((await /** @type {FileSystemFileHandle} */ (handle).getFile()).size);
        }
        return sizes;
      });
    const { result, size } = await arrival('large-compacted.vhd');
    assert.ok(size > 160 << 20, `${size} bytes`);
    assert.deepEqual(await staged(), [size], 'one file of that size lies in the storage');
    if (qemuImg) sameDisk(source, result, 'vpc');
    await page.click('[data-slot=remove]');
    await page.waitForFunction(() => document.querySelectorAll('.card').length === 0);
    await sleep(500);
    assert.deepEqual(await staged(), []);
    assert.deepEqual(faults, []);
  },
);
