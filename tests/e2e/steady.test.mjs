/** Nothing jumps, nothing stalls, and the focus is never lost. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { test } from 'node:test';
import { dynamicVhd, writeDynamicVhd } from '../support/vhd.mjs';
import * as images from './support/images.mjs';
import { cardOf, choose, drop, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing } from './support/programs.mjs';

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

/** What the web platform calls a long task, in milliseconds. */
const LONG = 50;

/** Sums the layout shifts, from the first moment on. */
const watchSteadiness = () => {
  const seen = { shift: 0, sources: /** @type {string[]} */ ([]) };
  Object.assign(window, { seen });
  new PerformanceObserver((list) => {
    for (const entry of /** @type {any[]} */ (list.getEntries())) {
      if (entry.hadRecentInput) continue;
      seen.shift += entry.value;
      for (const { node } of entry.sources) {
        seen.sources.push(`${node?.className || node?.id || node?.nodeName} ${entry.value}`);
      }
    }
  }).observe({ type: 'layout-shift', buffered: true });
};

/**
 * The longest task of the page's main thread while `work` goes on, in milliseconds. What counts is the time that the
 * thread had a processor: by the clock a task is as long as the other programs of a busy machine make it.
 * @param {import('playwright-core').Page} page
 * @param {() => Promise<void>} work
 */
async function longestTask(page, work) {
  await suite.browser.startTracing(page, { categories: ['toplevel', 'disabled-by-default-devtools.timeline'] });
  await work().catch(async (error) => {
    await suite.browser.stopTracing();
    throw error;
  });
  const { traceEvents } = JSON.parse(String(await suite.browser.stopTracing()));
  /** @type {{ name: string, pid: number, tid: number, dur: number, tdur: number, args: { name?: string } }[]} */
  const events = traceEvents;
  const placeOf = (/** @type {{ pid: number, tid: number }} */ { pid, tid }) => `${pid}:${tid}`;
  const named = events.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain');
  const mains = new Set(named.map(placeOf));
  // One that was cut off by the end of the recording has no length.
  const tasks = events.filter((event) => event.name === 'RunTask' && event.tdur >= 0 && mains.has(placeOf(event)));
  assert.ok(tasks.length > 100, `${tasks.length} tasks were recorded`);
  return {
    cpu: Math.max(...tasks.map(({ tdur }) => tdur)) / 1000,
    clock: Math.max(...tasks.map(({ dur }) => dur)) / 1000,
  };
}

for (const width of [360, 768, 1440]) {
  test(`a drop moves nothing, ${width} pixels wide`, { skip: needs }, async (t) => {
    const page = await suite.open(t, { script: watchSteadiness, viewport: { width, height: 900 } });
    await drop(page, [await suite.file(`steady-${width}.vhdx`, images.sample())], 300);
    await waitFor(page, `steady-${width}.vhdx`, 'Ready');
    await page.locator('[data-slot=option-list][aria-busy=false]').waitFor({ state: 'attached' });
    await page.locator('.legend li').first().waitFor();
    await page.waitForTimeout(300);
    const { shift, sources } = await page.evaluate(() => /** @type {any} */ (window).seen);
    t.diagnostic(`layout shift ${shift.toFixed(4)}`);
    assert.ok(shift < 0.02, `${shift}: ${sources.join('; ')}`);
  });
}

const BLOCKS = 20_000;
/** Images of so many blocks, and what their pictures say. @type {Record<string, { make: (path: string) => void, says: RegExp }>} */
const WIDE = {
  'hardly any of them stored': {
    make: (path) => {
      const stored = Object.fromEntries(Array.from({ length: 40 }, (_, index) => [index * 499, index % 3]));
      writeFileSync(path, dynamicVhd({ blocks: BLOCKS, stored, id: 'ee'.repeat(16) }));
    },
    says: /never stored/,
  },
  'all of them stored': {
    make: (path) => {
      const blockSize = 64 * 1024;
      const blocks = Object.fromEntries(Array.from({ length: BLOCKS }, (_, n) => [n, Uint8Array.of(n % 40 ? 0 : 1)]));
      writeDynamicVhd(path, { size: BLOCKS * blockSize, blockSize, blocks });
    },
    says: /unknown/i,
  },
};

for (const [kind, { make, says }] of Object.entries(WIDE)) {
  test(`20,000 blocks, ${kind}: no task takes 50 ms, from the choice on into a run`, { skip: needs }, async (t) => {
    const source = suite.path(`wide-${kind.slice(0, 3)}.vhd`);
    make(source);
    const name = basename(source);
    /** @type {{ cpu: number, clock: number }[]} */
    const tries = [];
    for (let left = 3; left > 0 && !tries.some(({ cpu }) => cpu < LONG); left--) {
      const page = await suite.open(t, { viewport: { width: 1440, height: 900 } });
      const longest = await longestTask(page, async () => {
        await choose(page, [source]);
        await waitFor(page, name, 'Ready');
        await page.locator('.legend li').first().waitFor();
        const box = await page.locator('.map-canvas').boundingBox();
        for (let n = 0; box && n < 20; n++) await page.mouse.move(box.x + 5 + n * 17, box.y + 5);
        await page.setViewportSize({ width: 900, height: 900 });
        const card = cardOf(page, name);
        await card.getByRole('button', { name: 'Download', exact: true }).click();
        // The picture changes as the run goes on; the whole of it would tell no more.
        await page.waitForTimeout(3000);
        const cancel = card.getByRole('button', { name: 'Cancel' });
        if (await cancel.isVisible()) await cancel.click();
        await card.locator('.badge', { hasText: /Made|Ready/ }).waitFor();
      });
      tries.push(longest);
      assert.match((await page.locator('.map-canvas').getAttribute('aria-label')) ?? '', says);
    }
    const told = tries.map(({ cpu, clock }) => `${cpu.toFixed(1)} ms (by the clock ${clock.toFixed(1)})`).join(', ');
    t.diagnostic(`longest task: ${told}`);
    assert.ok(Math.min(...tries.map(({ cpu }) => cpu)) < LONG, told);
  });
}

test('the focus is never on the body, by keyboard through a whole run', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await page.evaluate(() => {
    const lost = /** @type {string[]} */ ([]);
    Object.assign(window, { lost });
    let had = '';
    const look = () => {
      const active = document.activeElement;
      if (active && active !== document.body) had = active.textContent?.trim().slice(0, 30) ?? active.tagName;
      else if (had) lost.push(had);
      requestAnimationFrame(look);
    };
    look();
  });
  const focus = (/** @type {import('playwright-core').Locator} */ control) => control.focus();
  await focus(page.getByRole('button', { name: 'Try it with a sample' }));
  await page.keyboard.press('Enter');
  await waitFor(page, 'sample.vhdx', 'Ready');
  const card = cardOf(page, 'sample.vhdx');
  await focus(card.getByRole('button', { name: 'Download', exact: true }));
  const arriving = page.waitForEvent('download');
  await page.keyboard.press('Enter');
  await arriving;
  await waitFor(page, 'sample.vhdx', 'Made');
  await focus(card.getByRole('button', { name: 'Back to the options' }));
  await page.keyboard.press('Enter');
  await waitFor(page, 'sample.vhdx', 'Ready');
  await focus(card.getByRole('button', { name: 'Remove from this page' }));
  await page.keyboard.press('Enter');
  await page.waitForTimeout(100);
  await focus(page.getByRole('button', { name: 'Report a fault' }));
  await page.keyboard.press('Enter');
  await page.keyboard.press('Escape');
  await page.waitForTimeout(100);
  assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).lost), []);
});

test('a card that was folded while it ran shows its picture when it is opened', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await choose(page, [await suite.file('open.vhd', images.base()), await suite.file('folded.vhdx', images.sample())]);
  for (const name of ['open.vhd', 'folded.vhdx']) await waitFor(page, name, 'Ready');
  await page.getByRole('button', { name: 'Download all' }).click();
  for (const name of ['open.vhd', 'folded.vhdx']) await waitFor(page, name, 'Made');
  const card = cardOf(page, 'folded.vhdx');
  await card.getByRole('button', { name: 'Show the details' }).click();
  await card.locator('.legend li').first().waitFor();
  assert.match((await card.locator('.map-canvas').getAttribute('aria-label')) ?? '', /left out [\d.]+/);
  await card.locator('.map-canvas').focus();
  await page.keyboard.press('ArrowRight');
  t.diagnostic(await card.locator('.map-readout').innerText());
  await card.getByText(/^block 0, at 0\sbytes/).waitFor({ timeout: 3000 });
});
