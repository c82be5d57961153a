/** Several images at once, and what is known of a file that the browser saved. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { firstDifference } from '../../www/compare-files.js';
import * as images from './support/images.mjs';
import { ownFolder } from './support/own-folder.mjs';
import { cardOf, choose, download, drop, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing } from './support/programs.mjs';

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

test(
  'the saved file is compared byte for byte: the right one, a short one, a damaged one',
  { skip: needs },
  async (t) => {
    const page = await suite.open(t);
    await choose(page, [await suite.file('checked.vhd', images.base())]);
    await waitFor(page, 'checked.vhd', 'Ready');
    const to = suite.path('checked-compacted.vhd');
    await download(page, 'checked.vhd', to);
    await waitFor(page, 'checked.vhd', 'Made');
    const card = cardOf(page, 'checked.vhd');
    assert.doesNotMatch(await card.innerText(), /\bSaved\b/, 'the page claims nothing that it cannot know');

    const good = readFileSync(to);
    const give = (/** @type {Buffer} */ bytes) => {
      writeFileSync(to, bytes);
      return card.locator('.saved input[type=file]').setInputFiles(to);
    };
    await give(good.subarray(0, good.length - 512));
    await card.getByText('That file is not what was made').waitFor();
    await card.getByText(`It has ${(good.length - 512).toLocaleString('en')} bytes`, { exact: false }).waitFor();
    const damaged = Buffer.from(good);
    damaged[1 << 20] ^= 1;
    await give(damaged);
    await card.getByText(`differs at byte ${(1 << 20).toLocaleString('en')}`, { exact: false }).waitFor();
    assert.equal(await card.locator('.badge').innerText(), 'Made');
    await give(good);
    await card.getByText('Saved, and checked.').waitFor();
    await waitFor(page, 'checked.vhd', 'Saved');
  },
);

test('a saved file can be dropped on its card', { skip: needs }, async (t) => {
  const page = await suite.open(t, { viewport: { width: 900, height: 1200 } });
  await choose(page, [await suite.file('droppable.vhd', images.base())]);
  await waitFor(page, 'droppable.vhd', 'Ready');
  const to = suite.path('droppable-compacted.vhd');
  await download(page, 'droppable.vhd', to);
  await waitFor(page, 'droppable.vhd', 'Made');
  const box = await page.locator('.saved').boundingBox();
  await drop(page, [to], Math.round((box?.y ?? 0) + 20));
  await page.locator('.saved').getByText('Saved, and checked.').waitFor();
  assert.equal(await page.locator('.card').count(), 1, 'it is no new image');
});

test('the first difference is found wherever it is', () => {
  const bytes = (/** @type {number} */ at) => {
    const made = new Uint8Array(103).fill(7);
    if (at >= 0) made[at] = 8;
    return made.buffer;
  };
  for (const at of [0, 3, 4, 57, 99, 100, 102]) assert.equal(firstDifference(bytes(-1), bytes(at)), at);
  assert.equal(firstDifference(bytes(-1), bytes(-1)), -1);
});

test('thirty images: few engines, one progress, one sum', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  const paths = [];
  for (let n = 0; n < 30; n++) paths.push(await suite.file(`many-${n}.vhd`, images.base()));
  await choose(page, paths);
  await page.waitForFunction(
    () => [...document.querySelectorAll('.badge')].filter((one) => one.textContent === 'Ready').length === 30,
  );
  await page.getByText('30 images, 30 ready').waitFor();
  await page.waitForTimeout(300);
  t.diagnostic(`${page.workers().length} workers`);
  assert.ok(page.workers().length <= 5, `${page.workers().length} workers`);

  // A folded one works as well as one that was open all the time.
  const last = cardOf(page, 'many-29.vhd');
  await last.getByRole('button', { name: 'Show the details' }).click();
  await last.locator('.legend li').first().waitFor();

  let arrived = 0;
  page.on('download', () => {
    arrived += 1;
  });
  await page.getByRole('button', { name: 'Download all' }).click();
  await page.getByText(/^\d+ of 30 done/).waitFor();
  await page.getByText('30 new images made', { exact: false }).waitFor({ timeout: 60_000 });
  assert.equal(arrived, 30);
});

test('cancel all stops what works and what waits', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  const names = ['big-1.vhd', 'big-2.vhd', 'big-3.vhd'];
  const paths = [];
  for (const name of names) paths.push(await suite.file(name, images.zeros(400)));
  await choose(page, paths);
  for (const name of names) await waitFor(page, name, 'Ready');
  await page.getByRole('button', { name: 'Download all' }).click();
  await waitFor(page, 'big-1.vhd', 'Working');
  await page.getByRole('button', { name: 'Cancel all' }).click();
  for (const name of names) await waitFor(page, name, 'Ready');
  await page.getByText('3 images, 3 ready').waitFor();
});

test('all are saved to one folder, and are saved then', { skip: needs }, async (t) => {
  const page = await suite.open(t, { script: ownFolder });
  const names = ['a.vhd', 'b.vhd'];
  await choose(page, [await suite.file('a.vhd', images.base()), await suite.file('b.vhd', images.base())]);
  for (const name of names) await waitFor(page, name, 'Ready');
  await page.getByRole('button', { name: 'Save all to a folder…' }).click();
  for (const name of names) await waitFor(page, name, 'Saved');
  await page.getByText('2 new images saved', { exact: false }).waitFor();
});
