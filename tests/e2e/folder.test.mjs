/**
 * Saving into a folder, and giving up. Without a window no folder dialog ever answers, so the dialog hands out
 * a folder of the browser's own storage, which is as real; `dialog.test.mjs` goes through the dialog itself.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as images from './support/images.mjs';
import { fetchOut, listing, ownFolder } from './support/own-folder.mjs';
import { cardOf, choose, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing, qemuImg, sameDisk } from './support/programs.mjs';

/** @import { Page } from 'playwright-core' */

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

const save = (/** @type {Page} */ page, /** @type {string} */ name) =>
  cardOf(page, name).getByRole('button', { name: 'Save to a folder…' }).click();

test('the new image stands in the folder, compared after it was closed', { skip: needs }, async (t) => {
  const source = await suite.file('kept.vhd', images.base());
  const page = await suite.open(t, { script: ownFolder });
  await choose(page, [source]);
  await waitFor(page, 'kept.vhd', 'Ready');
  await save(page, 'kept.vhd');
  await waitFor(page, 'kept.vhd', 'Saved');
  const text = await cardOf(page, 'kept.vhd').innerText();
  assert.match(text, /Saved as kept-compacted\.vhd in the folder new-images/);
  assert.match(text, /Proved to hold the same\. The saved file was read back from its first byte to its last/);
  assert.deepEqual(Object.keys(await listing(page)), ['kept-compacted.vhd']);
  const to = await fetchOut(page, 'kept-compacted.vhd', suite.path('kept-out.vhd'));
  if (qemuImg) sameDisk(source, to, 'vpc');
});

test('an existing file is never written over: the new one gets another name', { skip: needs }, async (t) => {
  const page = await suite.open(t, { script: ownFolder });
  await page.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle('new-images', { create: true });
    const handle = await folder.getFileHandle('twice-compacted.vhd', { create: true });
    const writable = await handle.createWritable();
    await writable.write('precious');
    await writable.close();
  });
  await choose(page, [await suite.file('twice.vhd', images.base())]);
  await waitFor(page, 'twice.vhd', 'Ready');
  await save(page, 'twice.vhd');
  await waitFor(page, 'twice.vhd', 'Saved');
  const files = await listing(page);
  assert.equal(files['twice-compacted.vhd'], 'precious'.length);
  assert.ok((files['twice-compacted (2).vhd'] ?? 0) > 1 << 20);
});

test('a cancel takes effect at once and leaves nothing behind; then it works again', { skip: needs }, async (t) => {
  const page = await suite.open(t, { script: ownFolder });
  await choose(page, [await suite.file('large.vhd', images.large(160 << 20))]);
  await waitFor(page, 'large.vhd', 'Ready');
  const card = cardOf(page, 'large.vhd');
  await card.getByRole('radio', { name: 'Yes' }).check();
  await save(page, 'large.vhd');
  await waitFor(page, 'large.vhd', 'Working');
  assert.match(await page.title(), /^\d+ % · large\.vhd – VHD Compactor$/);

  const cancel = card.getByRole('button', { name: 'Cancel' });
  const took = await cancel.evaluate(
    (button) =>
      new Promise((resolve) => {
        const badge = document.querySelector('.badge');
        const started = performance.now();
        const observer = new MutationObserver(() => {
          if (badge?.textContent !== 'Ready') return;
          observer.disconnect();
          resolve(performance.now() - started);
        });
        observer.observe(badge ?? document, { childList: true, characterData: true, subtree: true });
        /** @type {HTMLElement} */ (button).click();
      }),
  );
  t.diagnostic(`cancelled after ${Math.round(took)} ms`);
  assert.ok(took < 700, `cancelled after ${took} ms`);
  await card.getByText('Nothing was left behind', { exact: false }).waitFor();
  assert.deepEqual(await listing(page), {});
  assert.doesNotMatch(await page.title(), /%/);

  await save(page, 'large.vhd');
  await waitFor(page, 'large.vhd', 'Saved');
  assert.deepEqual(Object.keys(await listing(page)), ['large-compacted.vhd']);
});

test('when its worker dies it says so, nothing is left, and it works again', { skip: needs }, async (t) => {
  const page = await suite.open(t, { script: ownFolder });
  const file = await suite.file('dying.vhd', images.large(160 << 20));
  await choose(page, [file]);
  await waitFor(page, 'dying.vhd', 'Ready');
  const card = cardOf(page, 'dying.vhd');
  await card.getByRole('radio', { name: 'Yes' }).check();
  await save(page, 'dying.vhd');
  await waitFor(page, 'dying.vhd', 'Working');
  await page.workers()[0]?.evaluate(() => {
    setTimeout(() => {
      throw new Error('the worker is gone');
    });
  });
  await waitFor(page, 'dying.vhd', 'Stopped');
  assert.match(await card.innerText(), /Your file has only been read; it is as it was/);
  await page.waitForFunction(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('new-images', { create: true });
    for await (const _ of folder.keys()) return false;
    return true;
  });
  await page.reload();
  await choose(page, [file]);
  await waitFor(page, 'dying.vhd', 'Ready');
  await cardOf(page, 'dying.vhd').getByRole('radio', { name: 'Yes' }).check();
  await save(page, 'dying.vhd');
  await waitFor(page, 'dying.vhd', 'Saved');
  assert.deepEqual(Object.keys(await listing(page)), ['dying-compacted.vhd']);
});

test('a folder that the browser refuses is explained, and nothing is lost', { skip: needs }, async (t) => {
  const page = await suite.open(t, {
    script: () => {
      window.showDirectoryPicker = () => Promise.reject(new DOMException('contains system files', 'SecurityError'));
    },
  });
  await choose(page, [await suite.file('refused.vhd', images.base())]);
  await waitFor(page, 'refused.vhd', 'Ready');
  await save(page, 'refused.vhd');
  await page.getByRole('heading', { name: 'The browser does not let pages write there' }).waitFor();
  assert.equal(await cardOf(page, 'refused.vhd').locator('.badge').innerText(), 'Ready');
});

test('when the place is full, it says so and clears up', { skip: needs }, async (t) => {
  const page = await suite.open(t, { script: ownFolder });
  await choose(page, [await suite.file('full.vhd', images.base())]);
  await waitFor(page, 'full.vhd', 'Ready');
  const session = await page.context().newCDPSession(page);
  await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(page.url()).origin, quotaSize: 3_000_000 });
  await save(page, 'full.vhd');
  await waitFor(page, 'full.vhd', 'Stopped');
  await page.getByRole('heading', { name: 'There is not enough room for the new image' }).waitFor();
  assert.deepEqual(await listing(page), {});
});

test('where the browser has no folder picker, none is offered', { skip: needs }, async (t) => {
  const page = await suite.open(t, { script: () => Reflect.deleteProperty(window, 'showDirectoryPicker') });
  await choose(page, [await suite.file('plain.vhd', images.base())]);
  await waitFor(page, 'plain.vhd', 'Ready');
  assert.ok(await cardOf(page, 'plain.vhd').getByRole('button', { name: 'Save to a folder…' }).isHidden());
});
