/**
 * A browser with the built page in it, served on this machine. Every page is watched: an error, a violated
 * policy or a request to anywhere else fails its test.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { chromium as playwright } from 'playwright-core';
import { serve } from '../../../scripts/lib/server.mjs';
import { chromium, dist } from './programs.mjs';

/** @import { Browser, BrowserContextOptions, Page } from 'playwright-core' */
/** @import { TestContext } from 'node:test' */

export const FLAGS = [
  '--no-sandbox',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
];

/**
 * Starts server and browser before the tests of a file, and ends them after.
 * @param {{ launch?: import('playwright-core').LaunchOptions }} [options]
 */
export function pageSuite({ launch = {} } = {}) {
  /** @type {{ address: string, server: import('node:http').Server, browser: Browser, folder: string }} */
  let running;

  before(async () => {
    if (!chromium) return;
    const folder = await mkdtemp(join(tmpdir(), 'vhd-compactor-page-'));
    const browser = await playwright.launch({ executablePath: chromium, args: FLAGS, ...launch });
    running = { ...(await serve(dist, 0)), browser, folder };
  });
  after(async () => {
    await running?.browser.close();
    running?.server.closeAllConnections();
    running?.server.close();
    if (running) await rm(running.folder, { recursive: true, force: true });
  });

  return {
    get address() {
      return running.address;
    },
    get browser() {
      return running.browser;
    },
    /** A file for the page. @param {string} name @param {Buffer} bytes */
    async file(name, bytes) {
      const path = join(running.folder, name);
      await writeFile(path, bytes);
      return path;
    },
    /** A path in the test's folder. @param {string} name */
    path: (name) => join(running.folder, name),
    /**
     * A fresh page; it is closed, and what it did is judged, at the end of the test.
     * @param {TestContext} t
     * @param {BrowserContextOptions & { script?: () => void, hash?: string, allow?: RegExp }} [options]
     */
    async open(t, { script, hash = '', allow, ...options } = {}) {
      const context = await running.browser.newContext({ acceptDownloads: true, ...options });
      const page = await context.newPage();
      const faults = watch(page, running.address);
      if (script) await page.addInitScript(script);
      await page.goto(running.address + hash);
      t.after(async () => {
        await context.close();
        assert.deepEqual(
          faults.filter((fault) => !allow?.test(fault)),
          [],
        );
      });
      return page;
    },
  };
}

/** What a page does that it must not. @param {Page} page @param {string} address @returns {string[]} */
export function watch(page, address) {
  /** @type {string[]} */
  const faults = [];
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) faults.push(`console: ${message.text()}`);
  });
  page.context().on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !url.startsWith('blob:')) faults.push(`request: ${url}`);
  });
  return faults;
}

/** Gives files to the page as the file dialog does. @param {Page} page @param {string[]} paths */
export const choose = (page, paths) => page.setInputFiles('#files', paths);

/** Drops files upon the page as a file manager does, handles and all. @param {Page} page @param {string[]} files @param {number} [y] @param {number} [x] */
export async function drop(page, files, y = 400, x = 300) {
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of /** @type {const} */ (['dragEnter', 'dragOver', 'drop'])) {
    await session.send('Input.dispatchDragEvent', { type, x, y, data });
  }
}

/** The card of an image. @param {Page} page @param {string} name */
export const cardOf = (page, name) => page.locator('.card', { has: page.getByRole('heading', { name, exact: true }) });

/** Waits until a card says that it is in a state. @param {Page} page @param {string} name @param {string} state */
export const waitFor = (page, name, state) =>
  cardOf(page, name).locator('.badge', { hasText: state }).waitFor({ timeout: 30_000 });

/** Clicks Download and keeps what arrives. @param {Page} page @param {string} name @param {string} to */
export async function download(page, name, to) {
  const arriving = page.waitForEvent('download');
  await cardOf(page, name).getByRole('button', { name: 'Download', exact: true }).click();
  const arrived = await arriving;
  await arrived.saveAs(to);
  return arrived.suggestedFilename();
}
