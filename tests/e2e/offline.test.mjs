/** The page as an installed program: without a network, strictly closed, and updated without haste. */
import assert from 'node:assert/strict';
import { cp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { ACCEPTED_FILES } from '../../lib/formats.js';
import { serve } from '../../scripts/lib/server.mjs';
import * as images from './support/images.mjs';
import { cardOf, download, drop, pageSuite, waitFor, watch } from './support/page.mjs';
import { chromium, dist, missing } from './support/programs.mjs';

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

test('after the first visit it works without a network, the sample too', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await page.getByText('works offline').waitFor();
  await page.context().setOffline(true);
  await page.reload();
  await page.getByRole('button', { name: 'Try it with a sample' }).click();
  await waitFor(page, 'sample.vhdx', 'Ready');
  await download(page, 'sample.vhdx', suite.path('offline-out.vhdx'));
  await waitFor(page, 'sample.vhdx', 'Made');
});

test('it can be installed, and opens disk images from the file manager', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  const session = await page.context().newCDPSession(page);
  const { errors } = await session.send('Page.getAppManifest');
  assert.deepEqual(errors, []);
  const manifest = await page.evaluate(async () => (await fetch('manifest.webmanifest')).json());
  assert.deepEqual(
    manifest.shortcuts.map((/** @type {any} */ one) => one.url),
    ['./#compare'],
  );
  const accepted = manifest.file_handlers.flatMap((/** @type {any} */ one) => Object.values(one.accept).flat());
  assert.deepEqual(accepted.sort(), ACCEPTED_FILES.split(',').sort());
  for (const { src, sizes } of manifest.icons) {
    const [width] = await page.evaluate(async (address) => {
      const image = new Image();
      image.src = address;
      await image.decode();
      return [image.naturalWidth];
    }, src);
    if (sizes !== 'any') assert.equal(`${width}x${width}`, sizes, src);
  }
});

test('nothing inline, no eval, no text that becomes markup', { skip: needs }, async (t) => {
  const html = await readFile(join(dist, 'index.html'), 'utf8');
  assert.doesNotMatch(html, /<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=/);
  const policy = /http-equiv="?Content-Security-Policy"?\s+content="([^"]+)"/.exec(html)?.[1] ?? '';
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe-inline|'unsafe-eval'|https?:|\*/);

  // What the policy stops is told in the console: that is the point here.
  const page = await suite.open(t, { allow: /Content Security Policy|Trusted|unsafe-eval/ });
  const outcomes = await page.evaluate(async () => {
    /** @type {Record<string, string>} */
    const seen = {};
    const attempt = async (/** @type {string} */ name, /** @type {() => unknown} */ action) => {
      try {
        await action();
        seen[name] = 'allowed';
      } catch {
        seen[name] = 'refused';
      }
    };
    const inThePage = (/** @type {string} */ code) =>
      new Promise((resolve, reject) => {
        const script = document.createElement('script');
        script.textContent = code;
        document.head.append(script);
        resolve(undefined);
        void reject;
      });
    await attempt('markup from text', () => {
      document.createElement('div').innerHTML = '<b>x</b>';
    });
    await attempt('inline script', () => inThePage('window.ran = true'));
    await attempt('another policy', () => /** @type {any} */ (window).trustedTypes.createPolicy('mine', {}));
    await attempt('a request elsewhere', () => fetch('https://example.invalid/'));
    return seen;
  });
  assert.deepEqual(outcomes, {
    'markup from text': 'refused',
    'inline script': 'refused',
    'another policy': 'refused',
    'a request elsewhere': 'refused',
  });
});

test('a new version waits to be asked for, and until nothing runs', { skip: needs }, async (t) => {
  const folder = suite.path('site');
  await cp(dist, folder, { recursive: true });
  const { address, server } = await serve(folder, 0);
  const context = await suite.browser.newContext();
  t.after(async () => {
    await context.close();
    server.closeAllConnections();
    server.close();
  });
  const page = await context.newPage();
  const faults = watch(page, address);
  await page.goto(address);
  await page.getByText('works offline').waitFor();
  await page.reload();
  await page.getByRole('button', { name: 'Try it with a sample' }).click();
  await waitFor(page, 'sample.vhdx', 'Ready');

  await writeFile(join(folder, 'sw.js'), `${await readFile(join(folder, 'sw.js'), 'utf8')}\n// Another version.\n`);
  await page.evaluate(async () => (await navigator.serviceWorker.getRegistration())?.update());
  const toast = page.getByText('A new version of this page is ready.');
  await toast.waitFor();
  assert.equal(await cardOf(page, 'sample.vhdx').locator('.badge').innerText(), 'Ready', 'the work goes on');

  // As a run in another window would.
  await page.evaluate(() => {
    void navigator.locks.request(
      'vhd-compactor-run',
      { mode: 'shared' },
      () =>
        new Promise((resolve) => {
          Object.assign(window, { endRun: resolve });
        }),
    );
  });
  await page.getByRole('button', { name: 'Use it now' }).click();
  await page.waitForTimeout(500);
  assert.equal(await page.locator('.card').count(), 1, 'it waits for the run');
  const loaded = page.waitForEvent('load');
  await page.evaluate(() => /** @type {any} */ (window).endRun());
  await loaded;
  assert.equal(await page.locator('.card').count(), 0);
  assert.deepEqual(faults, []);
});

test('leaving the page while it works is asked about', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await page.getByRole('button', { name: 'Try it with a sample' }).click();
  await waitFor(page, 'sample.vhdx', 'Ready');
  const wouldAsk = () => page.evaluate(() => !window.dispatchEvent(new Event('beforeunload', { cancelable: true })));
  assert.equal(await wouldAsk(), false);
  const asked = page.evaluate(
    () =>
      new Promise((resolve) => {
        new MutationObserver(() => {
          if (document.querySelector('.badge')?.textContent !== 'Working') return;
          setTimeout(() => resolve(!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))));
        }).observe(document.body, { childList: true, subtree: true, characterData: true });
      }),
  );
  await download(page, 'sample.vhdx', suite.path('asked-out.vhdx'));
  assert.equal(await asked, true);
  await waitFor(page, 'sample.vhdx', 'Made');
  await page.waitForTimeout(100);
  assert.equal(await wouldAsk(), false);
});

/** The site as another version: every hash in a name is another one, and the old files are gone. @param {string} folder */
async function newVersion(folder) {
  const names = await readdir(folder);
  const hashes = [...new Set(names.flatMap((name) => /\.([0-9a-f]{12,})\./.exec(name)?.[1] ?? []))];
  const renew = (/** @type {string} */ text) =>
    hashes.reduce((changed, hash) => changed.replaceAll(hash, [...hash].reverse().join('')), text);
  for (const name of names) {
    const path = join(folder, name);
    if (!/\.(html|js|css|wasm)$/.test(name)) continue;
    const bytes = await readFile(path);
    await rm(path);
    await writeFile(join(folder, renew(name)), name.endsWith('.wasm') ? bytes : renew(bytes.toString('utf8')));
  }
}

test('two tabs with an update between them both go on', { skip: needs }, async (t) => {
  const folder = suite.path('two-tabs');
  await cp(dist, folder, { recursive: true });
  const { address, server } = await serve(folder, 0);
  const context = await suite.browser.newContext();
  t.after(async () => {
    await context.close();
    server.closeAllConnections();
    server.close();
  });
  const old = await context.newPage();
  await old.goto(address);
  await old.getByText('works offline').waitFor();
  await old.reload();
  await old.getByRole('button', { name: 'Try it with a sample' }).click();
  await waitFor(old, 'sample.vhdx', 'Ready');

  await newVersion(folder);
  const other = await context.newPage();
  await other.goto(address);
  await other.evaluate(async () => (await navigator.serviceWorker.getRegistration())?.update());
  const loaded = other.waitForEvent('load');
  await other.getByRole('button', { name: 'Use it now' }).click();
  await loaded;
  await other.getByRole('button', { name: 'Try it with a sample' }).click();
  await waitFor(other, 'sample.vhdx', 'Ready');

  assert.equal(await cardOf(old, 'sample.vhdx').count(), 1, 'the old tab keeps its work');
  // It needs a new engine, whose files the server no longer has.
  await old.setInputFiles('#files', await suite.file('later.vhd', images.base()));
  await waitFor(old, 'later.vhd', 'Ready');
  await download(old, 'later.vhd', suite.path('later-out.vhd'));
  await waitFor(old, 'later.vhd', 'Made');
});

test('an update asks before it takes a result away that may not be saved', { skip: needs }, async (t) => {
  const folder = suite.path('unsaved');
  await cp(dist, folder, { recursive: true });
  const { address, server } = await serve(folder, 0);
  const context = await suite.browser.newContext();
  t.after(async () => {
    await context.close();
    server.closeAllConnections();
    server.close();
  });
  const page = await context.newPage();
  await page.goto(address);
  await page.getByText('works offline').waitFor();
  await page.reload();
  await page.getByRole('button', { name: 'Try it with a sample' }).click();
  await waitFor(page, 'sample.vhdx', 'Ready');
  await download(page, 'sample.vhdx', suite.path('unsaved-out.vhdx'));
  await waitFor(page, 'sample.vhdx', 'Made');
  await newVersion(folder);
  await page.evaluate(async () => (await navigator.serviceWorker.getRegistration())?.update());
  await page.getByRole('button', { name: 'Use it now' }).click();
  await page.getByText('1 new image on this page may not be saved yet', { exact: false }).waitFor();
  assert.equal(await page.locator('.card').count(), 1);
  const loaded = page.waitForEvent('load');
  await page.getByRole('button', { name: 'Reload', exact: true }).click();
  await loaded;
});

test('a half-finished deployment shows a new visitor a word', { skip: needs }, async (t) => {
  const folder = suite.path('half');
  await cp(dist, folder, { recursive: true });
  for (const name of await readdir(folder)) if (/^main\..*\.js$/.test(name)) await rm(join(folder, name));
  const { address, server } = await serve(folder, 0);
  const page = await suite.browser.newPage();
  t.after(async () => {
    await page.close();
    server.closeAllConnections();
    server.close();
  });
  await page.goto(address);
  await page.getByText('a part of this page did not arrive', { exact: false }).waitFor();
  await page.waitForFunction(
    () => getComputedStyle(/** @type {Element} */ (document.querySelector('.boot'))).visibility === 'visible',
  );
});

test('an engine that did not arrive is told as that, and nothing is said of the disk', { skip: needs }, async (t) => {
  const folder = suite.path('no-engine');
  await cp(dist, folder, { recursive: true });
  for (const name of await readdir(folder)) if (name.endsWith('.wasm')) await rm(join(folder, name));
  const { address, server } = await serve(folder, 0);
  const context = await suite.browser.newContext({ serviceWorkers: 'block' });
  t.after(async () => {
    await context.close();
    server.closeAllConnections();
    server.close();
  });
  const page = await context.newPage();
  await page.goto(address);
  await page.setInputFiles('#files', await suite.file('fine.vhd', images.base()));
  await page.getByRole('heading', { name: 'A part of this page could not be loaded' }).waitFor();
});

test('after a reload a dropped file can be opened again, or forgotten', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await drop(page, [await suite.file('kept.vhd', images.base())]);
  await waitFor(page, 'kept.vhd', 'Ready');
  await page.reload();
  // Where the browser still allows it the card comes back by itself, else with a click.
  const bar = page.locator('#restore');
  const card = cardOf(page, 'kept.vhd');
  await bar.getByText('kept.vhd').or(card).first().waitFor();
  const isBack = await card.isVisible();
  t.diagnostic(isBack ? 'the card came back by itself' : 'the card is offered');
  if (isBack) {
    await waitFor(page, 'kept.vhd', 'Ready');
    await card.getByRole('button', { name: 'Remove from this page' }).click();
  } else {
    await bar.getByRole('button', { name: 'Open again' }).waitFor();
    await bar.getByRole('button', { name: 'Forget' }).click();
  }
  await page.reload();
  await page.getByRole('button', { name: 'Try it with a sample' }).waitFor();
  await page.waitForTimeout(500);
  assert.equal(await bar.innerText(), '');
  assert.equal(await page.locator('.card').count(), 0);
});
