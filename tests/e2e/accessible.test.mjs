/** For everybody: axe finds nothing in any state and theme, and the keyboard alone is enough. */
import assert from 'node:assert/strict';
import { AxeBuilder } from '@axe-core/playwright';
import { test } from 'node:test';
import * as images from './support/images.mjs';
import { cardOf, choose, download, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing } from './support/programs.mjs';

/** @import { Page } from 'playwright-core' */

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

/** @type {Record<string, (page: Page) => Promise<unknown>>} */
const states = {
  welcome: (page) => page.getByRole('button', { name: 'Docker Desktop' }).click(),
  async ready(page) {
    await page.getByRole('button', { name: 'Try it with a sample' }).click();
    await waitFor(page, 'sample.vhdx', 'Ready');
    await page.evaluate(() =>
      document.querySelectorAll('.ready details').forEach((one) => one.setAttribute('open', '')),
    );
  },
  async question(page) {
    await choose(page, [await suite.file('fixed.vhd', images.fixed())]);
    await waitFor(page, 'fixed.vhd', 'Ready');
  },
  async running(page) {
    await choose(page, [await suite.file('running.vhd', images.large(96 << 20))]);
    await waitFor(page, 'running.vhd', 'Ready');
    await page.getByRole('radio', { name: 'Yes' }).check();
    await cardOf(page, 'running.vhd').getByRole('button', { name: 'Download', exact: true }).click();
    await waitFor(page, 'running.vhd', 'Working');
  },
  async done(page) {
    await page.getByRole('button', { name: 'Try it with a sample' }).click();
    await waitFor(page, 'sample.vhdx', 'Ready');
    await download(page, 'sample.vhdx', suite.path('axe-out.vhdx'));
    await waitFor(page, 'sample.vhdx', 'Made');
    await page.locator('.next summary').first().click();
  },
  async 'failed, and needs its parent'(page) {
    await choose(page, [
      await suite.file('letter.vhd', Buffer.alloc(4096, 'Dear all, ')),
      await suite.file('child.vhd', images.child()),
    ]);
    await waitFor(page, 'letter.vhd', 'Stopped');
    await waitFor(page, 'child.vhd', 'Needs its parent');
    await cardOf(page, 'child.vhd').getByRole('button', { name: 'Show the details' }).click();
  },
  async compare(page) {
    await page.getByRole('link', { name: 'Compare two images' }).click();
    const path = await suite.file('base.vhd', images.base());
    await page.setInputFiles('#file-original', path);
    await page.setInputFiles('#file-compacted', path);
    await page.getByRole('button', { name: 'Compare', exact: true }).click();
    await page.getByText('They hold the same.').waitFor();
  },
};

for (const [state, reach] of Object.entries(states)) {
  for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
    test(`axe: ${state}, ${colorScheme}`, { skip: needs }, async (t) => {
      const page = await suite.open(t, { colorScheme, reducedMotion: 'reduce' });
      await reach(page);
      const { violations } = await new AxeBuilder({ page }).setLegacyMode(true).analyze();
      assert.deepEqual(
        violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`),
        [],
      );
    });
  }
}

test('with the keyboard alone: sample, option, download, and out again', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await tabTo(page, 'Try it with a sample');
  await page.keyboard.press('Enter');
  await waitFor(page, 'sample.vhdx', 'Ready');
  await tabTo(page, 'Smallest');
  await page.keyboard.press('ArrowDown');
  assert.ok(await page.getByRole('radio', { name: 'Quick' }).isChecked());
  await tabTo(page, 'Download', 'Shift+Tab');
  const arriving = page.waitForEvent('download');
  await page.keyboard.press('Enter');
  await arriving;
  await waitFor(page, 'sample.vhdx', 'Made');
  assert.equal(await page.evaluate(() => document.activeElement?.tagName), 'H3', 'the result has the focus');
  await tabTo(page, 'Back to the options');
});

test('progress and results are spoken, politely', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await page.getByRole('button', { name: 'Try it with a sample' }).click();
  const announcer = page.locator('#announcer[aria-live=polite]');
  await announcer
    .getByText(/sample\.vhdx is read\. The new image will take \d+(\.\d+)?\sMB or less\./)
    .waitFor({ state: 'attached' });
  await download(page, 'sample.vhdx', suite.path('spoken.vhdx'));
  await announcer.getByText(/sample\.vhdx is done: the new image takes/).waitFor({ state: 'attached' });
});

test('a narrow window, large letters and forced colours lose nothing', { skip: needs }, async (t) => {
  for (const options of [
    { viewport: { width: 320, height: 640 } },
    { viewport: { width: 360, height: 740 }, deviceScaleFactor: 3 },
    { forcedColors: /** @type {const} */ ('active') },
  ]) {
    const page = await suite.open(t, options);
    await page.getByRole('button', { name: 'Try it with a sample' }).click();
    await waitFor(page, 'sample.vhdx', 'Ready');
    await page.locator('.legend').getByText('Free').first().waitFor();
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(overflow <= 0, `${JSON.stringify(options)}: ${overflow} pixels too wide`);
    // It is drawn in the frame after the one that shows the legend.
    let crisp = false;
    for (const start = performance.now(); !crisp && performance.now() - start < 5000;) {
      crisp = await page.evaluate(async () => {
        await new Promise((resolve) => requestAnimationFrame(resolve));
        const canvas = /** @type {HTMLCanvasElement} */ (document.querySelector('.map-canvas'));
        return Math.abs(canvas.width - canvas.clientWidth * devicePixelRatio) <= 1;
      });
    }
    assert.ok(crisp, `${JSON.stringify(options)}: the map has one dot for each dot of the screen`);
  }
});

/** Presses Tab until the control of that name has the focus. @param {Page} page @param {string} name @param {string} [key] */
async function tabTo(page, name, key = 'Tab') {
  for (let presses = 0; presses < 60; presses++) {
    await page.keyboard.press(key);
    const found = await page.evaluate((wanted) => {
      const element = /** @type {HTMLInputElement | null} */ (document.activeElement);
      return [element?.textContent?.trim(), element?.labels?.[0]?.textContent?.trim()].includes(wanted);
    }, name);
    if (found) return;
  }
  assert.fail(`no way to “${name}” with ${key}`);
}
