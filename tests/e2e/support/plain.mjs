/**
 * Chromium as a person has it: a window of its own, its own profile, and no automation that answers for the
 * person. Playwright allows every download; here the browser asks, and nobody answers.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import { serve } from '../../../scripts/lib/server.mjs';
import { FLAGS } from './page.mjs';
import { chromium, dist } from './programs.mjs';
import { openScreen } from './window.mjs';

/** @import { TestContext } from 'node:test' */
/** @import { ElementHandle, Page } from 'puppeteer-core' */

/**
 * Opens the page; everything is cleared up at the end of the test.
 * @param {TestContext} t
 * @param {{ downloads?: string, isBlocked?: boolean }} [options] the folder for downloads, by default one of its own;
 *   whether the person once answered *Block* when the page began several downloads
 */
export async function plainWindow(t, { downloads, isBlocked = false } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'vhd-compactor-plain-'));
  const profile = join(folder, 'profile');
  const saved = downloads ?? join(folder, 'downloads');
  await mkdir(join(profile, 'Default'), { recursive: true });
  await mkdir(saved, { recursive: true });
  const preferences = {
    download: { default_directory: saved, prompt_for_download: false },
    // What the browser notes of that answer, for all pages.
    ...(isBlocked && { profile: { default_content_setting_values: { automatic_downloads: 2 } } }),
  };
  await writeFile(join(profile, 'Default', 'Preferences'), JSON.stringify(preferences));

  const screen = await openScreen();
  const { address, server } = await serve(dist, 0);
  const child = spawn(
    chromium ?? '',
    [...FLAGS, '--remote-debugging-port=0', `--user-data-dir=${profile}`, '--window-size=1200,860', address],
    { env: screen.env, stdio: 'ignore' },
  );
  const port = join(profile, 'DevToolsActivePort');
  for (let tries = 300; tries > 0 && !existsSync(port); tries--) await sleep(100);
  const [number, path] = readFileSync(port, 'utf8').trim().split('\n');
  const browser = await puppeteer.connect({
    browserWSEndpoint: `ws://127.0.0.1:${number}${path}`,
    defaultViewport: null,
    // Which also means: what is downloaded is left to the browser.
    protocolTimeout: 300_000,
  });
  t.after(async () => {
    await browser.close().catch(() => {});
    child.kill();
    screen.close();
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  const page = await until(async () => (await browser.pages()).find((one) => one.url().startsWith(address)));
  return { page, browser, screen, folder, saved, address };
}

/** Asks until there is an answer. @template T @param {() => Promise<T | undefined | null | false>} ask @param {number} [seconds] @returns {Promise<T>} */
export async function until(ask, seconds = 60) {
  for (let tries = seconds * 5; tries > 0; tries--) {
    const answer = await ask();
    if (answer) return answer;
    await sleep(200);
  }
  throw new Error(`not within ${seconds} s: ${ask}`);
}

/** What has arrived, without what is on its way. @param {string} folder */
export const arrived = (folder) => readdirSync(folder).filter((name) => !/\.crdownload$|^\./.test(name));

/** @param {Page} page @param {string[]} paths */
export async function give(page, paths) {
  const input = /** @type {ElementHandle<HTMLInputElement>} */ (await page.waitForSelector('#files'));
  await input.uploadFile(...paths);
}

/** Waits until so many cards are in a state. @param {Page} page @param {string} state @param {number} [count] @param {number} [timeout] */
export const cardsIn = (page, state, count = 1, timeout = 120_000) =>
  page.waitForFunction(
    (wanted, least) =>
      [...document.querySelectorAll('.badge')].filter((one) => one.textContent === wanted).length >= least,
    { timeout },
    state,
    count,
  );

/** Clicks the button of that label. @param {Page} page @param {string} label */
export async function press(page, label) {
  const button = await until(async () => {
    const found = await page.$$('button');
    for (const one of found) {
      if ((await one.evaluate((element) => element.textContent)) === label && (await one.isVisible())) return one;
    }
    return null;
  });
  await button.click();
}
