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

test(
  'Firefox: choose a file, download the new image',
  { skip: missing({ Firefox: firefox }), timeout: 90_000 },
  async (t) => {
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

    const source = join(folder, 'disk.vhd');
    await writeFile(source, images.base());
    const input = await page.$('#files');
    await /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (input).uploadFile(source);
    await until('Ready');
    const offered = await page.$$eval('.save .buttons button', (buttons) =>
      buttons.filter((one) => !(/** @type {HTMLElement} */ (one).hidden)).map((one) => one.textContent),
    );
    assert.deepEqual(offered, ['Download'], 'no folder is offered where the browser cannot');
    await page.click('.save .primary');
    await until('Made');

    const result = join(folder, 'disk-compacted.vhd');
    // Firefox holds the name with an empty file until the download is complete.
    const size = () => statSync(result, { throwIfNoEntry: false })?.size ?? 0;
    for (let tries = 300; tries > 0 && (size() === 0 || existsSync(`${result}.part`)); tries--) await sleep(100);
    assert.ok(size() > 4 << 20 && size() < statSync(source).size / 2, `${size()} bytes`);
    if (qemuImg) sameDisk(source, result, 'vpc');
    assert.deepEqual(faults, []);
  },
);
