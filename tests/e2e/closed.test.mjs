/**
 * A tab that is closed in each phase, by each way of saving: no part of an image has the new image's name, and the next
 * visit says what was cut short and what is left of it. Without a window the folder is one of the browser's own storage.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as images from './support/images.mjs';
import { fetchOut, listing, ownFolder } from './support/own-folder.mjs';
import { cardOf, choose, drop, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing, qemuImg, sameDisk } from './support/programs.mjs';

/** @import { Page } from 'playwright-core' */

const suite = pageSuite();
const needs = missing({ Chromium: chromium });
const MIB = 1024 * 1024;

/**
 * From that phase on the page hears nothing more of its run, however fast the machine is: what ends between a look at the
 * page and its closing would be no longer cut short. A script of the page.
 */
const deafFrom = (/** @type {string} */ wanted) => {
  window.Worker = class extends window.Worker {
    constructor(/** @type {string | URL} */ url, /** @type {WorkerOptions | undefined} */ options) {
      super(url, options);
      let isDeaf = false;
      this.addEventListener('message', (message) => {
        if (isDeaf) message.stopImmediatePropagation();
        isDeaf ||= message.data?.event === 'progress' && message.data.progress.phase === wanted;
      });
    }
  };
};

/** Two visits of one person: the first starts a run and ends in that phase. */
async function closedIn(
  /** @type {import('node:test').TestContext} */ t,
  /** @type {string} */ name,
  /** @type {string} */ label,
  /** @type {keyof typeof PHASES} */ phase,
) {
  const context = await suite.browser.newContext({ acceptDownloads: true });
  t.after(() => context.close());
  const open = async (/** @type {keyof typeof PHASES | null} */ deaf = null) => {
    const page = await context.newPage();
    await page.addInitScript(ownFolder);
    if (deaf) await page.addInitScript(deafFrom, deaf);
    await page.goto(suite.address);
    return page;
  };
  const page = await open(phase);
  const source = await suite.file(name, images.large(192 * MIB));
  await choose(page, [source]);
  await waitFor(page, name, 'Ready');
  await page.getByRole('radio', { name: 'Yes' }).check();
  const card = cardOf(page, name);
  await card.getByRole('button', { name: label, exact: true }).click();
  await card.locator('.phase', { hasText: PHASES[phase] }).waitFor();
  await page.close();
  const next = await open();
  // The browser is told of a closed tab in its own time.
  await next.waitForTimeout(500);
  await next.reload();
  return { page: next, source };
}

const PHASES = {
  scan: 'Looking through the disk',
  write: 'Writing the new image',
  finish: 'Putting the new image',
  verify: 'Proving that the new image',
};

for (const phase of /** @type {(keyof typeof PHASES)[]} */ (Object.keys(PHASES))) {
  test(
    `a tab that is closed in phase “${phase}” leaves no part of an image in a folder`,
    { skip: needs },
    async (t) => {
      const name = `closed-${phase}.vhd`;
      const made = `closed-${phase}-compacted.vhd`;
      const { page, source } = await closedIn(t, name, 'Save to a folder…', phase);
      const files = await listing(page);
      t.diagnostic(JSON.stringify(files));
      const note = page.locator('#unfinished .notice');
      await note.getByText('Your file is as it was.', { exact: false }).waitFor();
      const said = await note.innerText();
      if (files[made]) {
        // What has the name is all of it.
        const to = await fetchOut(page, made, suite.path(`closed-${phase}-out.vhd`));
        if (qemuImg) sameDisk(source, to, 'vpc');
        assert.match(said, /was closed before closed-\w+-compacted\.vhd .* was compared with/);
        return;
      }
      if (made in files) {
        assert.match(said, /an empty file, closed-\w+-compacted\.vhd, in the folder new-images/);
        await note.getByRole('button', { name: 'Remove the empty file' }).click();
      }
      await note.getByText('nothing is left of it in the folder new-images', { exact: false }).waitFor();
      assert.deepEqual(await listing(page), {});
      await note.getByRole('button', { name: 'Close this note' }).click();
      await note.waitFor({ state: 'detached' });
      await page.reload();
      await page.getByRole('button', { name: 'Try it with a sample' }).waitFor();
      await page.waitForTimeout(300);
      assert.equal(await note.count(), 0, 'it is said until it is read');
    },
  );
}

for (const phase of /** @type {const} */ (['scan', 'write', 'verify'])) {
  test(
    `a tab that is closed in phase “${phase}” of a download: the next visit says that nothing was saved`,
    { skip: needs },
    async (t) => {
      const name = `loaded-${phase}.vhd`;
      const { page } = await closedIn(t, name, 'Download', phase);
      const note = page.locator('#unfinished .notice');
      await note.getByText(`the new image of ${name} was made. Nothing was saved`, { exact: false }).waitFor();
    },
  );
}

test(
  'a reload in the middle of a run: the card is back or offered, ready and with no result',
  { skip: needs },
  async (t) => {
    const page = await suite.open(t, { script: ownFolder });
    page.on('dialog', (dialog) => void dialog.accept());
    await drop(page, [await suite.file('again.vhd', images.large(192 * MIB))]);
    await waitFor(page, 'again.vhd', 'Ready');
    const card = cardOf(page, 'again.vhd');
    await page.getByRole('radio', { name: 'Yes' }).check();
    await card.getByRole('button', { name: 'Save to a folder…' }).click();
    await page.waitForFunction(
      (words) => document.querySelector('.phase')?.textContent?.startsWith(words),
      PHASES.write,
      { polling: 'raf' },
    );
    await page.reload();
    const again = page.locator('#restore').getByRole('button', { name: 'Open again' });
    await card.or(again).first().waitFor();
    if (await again.isVisible()) t.diagnostic('the card is offered');
    else {
      await waitFor(page, 'again.vhd', 'Ready');
      assert.doesNotMatch(await card.innerText(), /Saved|Made|Proved/);
    }
    // A tab that is reloaded lets go of its run in its own time.
    await page.waitForTimeout(500);
    await page.reload();
    await page.locator('#unfinished').getByText('again.vhd', { exact: false }).waitFor();
  },
);

test('a run in another tab is not called cut short', { skip: needs }, async (t) => {
  const context = await suite.browser.newContext();
  t.after(() => context.close());
  const [page, other] = [await context.newPage(), await context.newPage()];
  await page.addInitScript(ownFolder);
  await page.goto(suite.address);
  await choose(page, [await suite.file('alive.vhd', images.large(192 * MIB))]);
  await waitFor(page, 'alive.vhd', 'Ready');
  await page.getByRole('radio', { name: 'Yes' }).check();
  // What closes a file is held back, so that the run surely goes on while the other tab looks.
  await page.evaluate(() => {
    void navigator.locks.request(
      'vhd-compactor-run',
      { mode: 'exclusive' },
      () =>
        new Promise((resolve) => {
          Object.assign(window, { letGo: resolve });
        }),
    );
  });
  await cardOf(page, 'alive.vhd').getByRole('button', { name: 'Save to a folder…' }).click();
  await waitFor(page, 'alive.vhd', 'Waiting');
  await other.goto(suite.address);
  await other.getByRole('button', { name: 'Try it with a sample' }).waitFor();
  await other.waitForTimeout(300);
  assert.equal(await other.locator('#unfinished .notice').count(), 0);
  await page.evaluate(() => /** @type {any} */ (window).letGo());
  await waitFor(page, 'alive.vhd', 'Saved');
  await page.close();
  await other.waitForTimeout(500);
  await other.reload();
  await other.getByRole('button', { name: 'Try it with a sample' }).waitFor();
  await other.waitForTimeout(300);
  assert.equal(await other.locator('#unfinished .notice').count(), 0, 'a run that ended well is forgotten');
});
