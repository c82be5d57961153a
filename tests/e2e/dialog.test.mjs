/** The real folder dialog of Chromium in a real window, the real permission prompt, a real file. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium as playwright } from 'playwright-core';
import { serve } from '../../scripts/lib/server.mjs';
import * as images from './support/images.mjs';
import { FLAGS, choose, waitFor, watch } from './support/page.mjs';
import { chromium, dist, missing, qemuImg, sameDisk } from './support/programs.mjs';
import { smallDisk } from './support/small-disk.mjs';
import { openScreen, screenNeeds } from './support/window.mjs';

const needs = missing({ Chromium: chromium, ...screenNeeds });

/**
 * Chooses an image and saves it to a folder, as a person does; everything is cleared up at the end of the test.
 * @param {import('node:test').TestContext} t
 * @param {(folder: string) => Promise<string>} placeIn makes the folder that is picked
 */
async function saveByDialog(t, placeIn) {
  const folder = await mkdtemp(join(tmpdir(), 'vhd-compactor-dialog-'));
  const screen = await openScreen();
  const { address, server } = await serve(dist, 0);
  const browser = await playwright.launch({
    executablePath: chromium ?? undefined,
    headless: false,
    env: screen.env,
    args: FLAGS,
  });
  t.after(async () => {
    await browser.close();
    screen.close();
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true, force: true });
  });

  const source = join(folder, 'disk.vhd');
  await writeFile(source, images.base());
  const place = await placeIn(folder);
  const page = await browser.newPage();
  const faults = watch(page, address);
  await page.goto(address);
  await choose(page, [source]);
  await waitFor(page, 'disk.vhd', 'Ready');

  await page.getByRole('button', { name: 'Save to a folder…' }).click();
  const dialog = await screen.window('Select where this site can save changes');
  await sleep(500);
  screen.hand('type', '--delay', '20', `${place}/`);
  await sleep(500);
  screen.clickLastButton(dialog);
  // The prompt "Let site edit files?" opens with its first button ready.
  await sleep(1500);
  screen.hand('key', 'Tab', 'Return');
  return { page, source, place, faults };
}

test('the folder dialog: choose, allow, and the new image is there', { skip: needs, timeout: 90_000 }, async (t) => {
  const { page, source, place, faults } = await saveByDialog(t, async (folder) => {
    await mkdir(join(folder, 'new'));
    return join(folder, 'new');
  });
  await waitFor(page, 'disk.vhd', 'Saved');
  await page.getByText('Proved to hold the same.').waitFor();

  assert.deepEqual(await readdir(place), ['disk-compacted.vhd'], 'the new image, and no trace of the writing');
  if (qemuImg) sameDisk(source, join(place, 'disk-compacted.vhd'), 'vpc');
  assert.deepEqual(faults, []);
});

test(
  'a folder on a disk that is full: it is told, and nothing is left there',
  { skip: needs || (process.getuid?.() !== 0 && 'needs root for a small disk'), timeout: 90_000 },
  async (t) => {
    const { page, place, faults } = await saveByDialog(t, () => smallDisk(t, 2));
    await waitFor(page, 'disk.vhd', 'Stopped');
    await page.getByRole('heading', { name: 'There is not enough room for the new image' }).waitFor();
    assert.deepEqual(await readdir(place), []);
    assert.deepEqual(faults, []);
  },
);
