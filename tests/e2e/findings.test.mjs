/** A scan that was interrupted goes on where it stopped, also after the page was closed; a changed file starts anew. */
import assert from 'node:assert/strict';
import { readFileSync, utimesSync } from 'node:fs';
import { test } from 'node:test';
import { cardOf, choose, download, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing } from './support/programs.mjs';
import { dynamicVhd } from '../support/vhd.mjs';

/** @import { Page } from 'playwright-core' */

const suite = pageSuite();
const needs = missing({ Chromium: chromium });
const NAME = 'zeros.vhd';
const GOES_ON = /Going on where the last run of the same job stopped/;

/** Starts a download and cancels it while it still looks for zeros. @param {Page} page */
async function interrupt(page) {
  const card = cardOf(page, NAME);
  await card.getByRole('button', { name: 'Download', exact: true }).click();
  await page.waitForFunction(() => {
    const bar = document.querySelector('progress');
    return bar !== null && bar.position > 0.05;
  });
  await card.getByRole('button', { name: 'Cancel' }).click();
  await waitFor(page, NAME, 'Ready');
}

/** Compacts to the end and gives the log. @param {Page} page */
async function finish(page) {
  await download(page, NAME, suite.path('out.vhd'));
  await waitFor(page, NAME, 'Made');
  const arriving = page.waitForEvent('download');
  await cardOf(page, NAME).getByRole('button', { name: 'Save the log' }).click();
  const to = suite.path('log.txt');
  await (await arriving).saveAs(to);
  return readFileSync(to, 'utf8');
}

test(
  'a cancelled scan goes on where it stopped, in a new page, and never for a changed file',
  { skip: needs },
  async (t) => {
    const blocks = 300;
    const stored = Object.fromEntries(Array.from({ length: blocks }, (_, block) => [block, 0]));
    const source = await suite.file(NAME, dynamicVhd({ blocks, stored, id: 'dd'.repeat(16) }));
    const page = await suite.open(t);
    await choose(page, [source]);
    await waitFor(page, NAME, 'Ready');
    await interrupt(page);

    await page.reload();
    await choose(page, [source]);
    await waitFor(page, NAME, 'Ready');
    assert.match(await finish(page), GOES_ON);

    // Once it is done, nothing is kept; and what was kept of a file that changed since is not used.
    await page.reload();
    await choose(page, [source]);
    await waitFor(page, NAME, 'Ready');
    await interrupt(page);
    utimesSync(source, new Date(), new Date(Date.now() - 60_000));
    await page.reload();
    await choose(page, [source]);
    await waitFor(page, NAME, 'Ready');
    assert.doesNotMatch(await finish(page), GOES_ON);
  },
);
