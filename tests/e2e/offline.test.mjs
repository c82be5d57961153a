/** The page as an installed program: without a network, strictly closed, and updated without haste. */
import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { serve } from '../../scripts/lib/server.mjs';
import { cardOf, download, pageSuite, waitFor, watch } from './support/page.mjs';
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
  assert.deepEqual(accepted.sort(), ['.avhdx', '.vhd', '.vhdx']);
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
