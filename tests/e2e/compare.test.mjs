/** The second mode: two images are compared. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as images from './support/images.mjs';
import { choose, download, drop, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing } from './support/programs.mjs';

/** @import { Page } from 'playwright-core' */

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

/** @param {Page} page @param {string} original @param {string} compacted */
async function compare(page, original, compacted) {
  await page.getByRole('link', { name: 'Compare two images' }).click();
  await page.setInputFiles('#file-original', original);
  await page.setInputFiles('#file-compacted', compacted);
  await page.getByRole('button', { name: 'Compare', exact: true }).click();
}

test('an image and its compacted twin hold the same', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  const original = await suite.file('original.vhdx', images.sample());
  await choose(page, [original]);
  await waitFor(page, 'original.vhdx', 'Ready');
  const compacted = suite.path('compacted.vhdx');
  await download(page, 'original.vhdx', compacted);
  await compare(page, original, compacted);
  await page.getByText('They hold the same.').waitFor();
});

test('a difference is found, and told as one', { skip: needs }, async (t) => {
  const page = await suite.open(t, { hash: '#compare' });
  const other = images.base();
  other[1 << 20] = 99;
  await compare(page, await suite.file('one.vhd', images.base()), await suite.file('other.vhd', other));
  const notice = page.locator('#compare-outcome .notice');
  await notice.waitFor();
  assert.match(await notice.innerText(), /do not hold the same/);
});

test(
  'a differencing image is compared with its parents at hand; what is dropped finds its place',
  { skip: needs },
  async (t) => {
    const page = await suite.open(t, { hash: '#compare' });
    const child = await suite.file('child.vhd', images.child());
    const base = await suite.file('base.vhd', images.base());
    // Beside the places, below them: the first missing one is filled.
    for (const place of ['original', 'compacted']) {
      await drop(page, [child], 680);
      await page.locator(`#pick-${place}`, { hasText: 'child.vhd' }).waitFor();
    }
    await page.setInputFiles('#file-parents', [base]);
    await page.getByRole('button', { name: 'Compare', exact: true }).click();
    await page.getByText('They hold the same.').waitFor();
  },
);
