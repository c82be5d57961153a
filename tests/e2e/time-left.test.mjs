/**
 * The time left tells the truth: in a real browser, by its own clock, for three kinds of image and each way of saving.
 * A machine that does something else for a moment is forgiven: most of the moments are judged, and runs repeated.
 */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeDynamicVhd } from '../support/vhd.mjs';
import { ownFolder } from './support/own-folder.mjs';
import { cardOf, choose, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing } from './support/programs.mjs';

/** @import { Page } from 'playwright-core' */
/** @typedef {{ at: number, left: number, percent: number, phase: string }} Moment times in seconds */

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

const BLOCK = 2 * 1024 * 1024;
const BLOCKS = 400;
/** By how much it may be wrong, how many seconds more, and how large a share of the moments may be worse. */
const FACTOR = 2;
const SLACK = 0.7;
const SHARE = 0.2;
/** On a machine that has other things to do, one of so many runs must be right. */
const ATTEMPTS = 3;

/** Keeps what the worker tells, with the page's own clock. */
const record = () => {
  const told = /** @type {Moment[]} */ ([]);
  Object.assign(window, { told });
  const Original = window.Worker;
  window.Worker = class extends Original {
    /** @param {string | URL} url @param {WorkerOptions} [options] */
    constructor(url, options) {
      super(url, options);
      this.addEventListener('message', ({ data }) => {
        const { event, progress, percent } = data;
        if (event !== 'progress' || progress.secondsLeft === null) return;
        told.push({ at: performance.now() / 1000, left: progress.secondsLeft, percent, phase: progress.phase });
      });
    }
  };
};

/** What each block starts with. @type {Record<string, (block: number) => Uint8Array>} */
const kinds = {
  // All but a few, or there would be nothing to gain.
  'all in use': (block) => (block < BLOCKS - 8 ? Uint8Array.of(7) : new Uint8Array()),
  'in use, then zeros': (block) => (block < BLOCKS / 2 ? Uint8Array.of(7) : new Uint8Array()),
  'all zeros': () => new Uint8Array(),
};
/** The button, and what the card says in the end. @type {Record<string, { button: string, end: string }>} */
const ways = {
  download: { button: 'Download', end: 'Made' },
  folder: { button: 'Save to a folder…', end: 'Saved' },
};

/** @type {[string, string][]} */
const cases = [
  ['all in use', 'folder'],
  ['in use, then zeros', 'download'],
  ['all zeros', 'folder'],
];

for (const [kind, way] of cases) {
  test(`${kind}, ${way}: the time left is right within a factor of two`, { skip: needs }, async (t) => {
    const name = `vhd-compactor-time-left-${process.pid}.vhd`;
    const path = join(tmpdir(), name);
    t.after(() => rm(path, { force: true }));
    const start = /** @type {(block: number) => Uint8Array} */ (kinds[kind]);
    const blocks = Object.fromEntries(Array.from({ length: BLOCKS }, (_, block) => [block, start(block)]));
    writeDynamicVhd(path, { size: BLOCKS * BLOCK, blocks });
    const page = await suite.open(t, { script: record });
    await page.evaluate(ownFolder);
    const { button, end } = /** @type {{ button: string, end: string }} */ (ways[way]);
    // The first run teaches the page how fast this machine is.
    await run(page, path, name, button, end);
    for (let attempt = 1; ; attempt++) {
      const { summary, wrong } = judge(await run(page, path, name, button, end));
      t.diagnostic(summary);
      if (wrong === '') return;
      assert.ok(attempt < ATTEMPTS, wrong);
    }
  });
}

/** @param {Page} page @param {string} path @param {string} name @param {string} button @param {string} end @returns {Promise<Moment[]>} */
async function run(page, path, name, button, end) {
  await choose(page, [path]);
  await waitFor(page, name, 'Ready');
  await page.evaluate(() => {
    /** @type {any} */ (window).told.length = 0;
  });
  await cardOf(page, name).getByRole('button', { name: button }).click();
  await cardOf(page, name).locator('.badge', { hasText: end }).waitFor({ timeout: 120_000 });
  const moments = await page.evaluate(() => /** @type {any} */ (window).told);
  await page.getByRole('button', { name: 'Remove from this page' }).click();
  // A context of its own keeps its files in memory, and has room for one such image.
  await page.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    await root.removeEntry('new-images', { recursive: true }).catch(() => {});
  });
  return moments;
}

/** How right the time left was; `wrong` says where it was not, if that was too often. @param {Moment[]} moments */
function judge(moments) {
  const [first] = moments;
  const last = moments.findLast(({ phase }) => phase === 'done');
  assert.ok(first && last, 'something was told, and that it is done');
  const whole = last.at - first.at;
  let before = 0;
  for (const { percent } of moments) {
    assert.ok(percent >= before, `the bar went back, from ${before} to ${percent} %`);
    before = percent;
  }
  const judged = moments.filter(({ at }) => at - first.at > whole / 20 && at < last.at);
  const wrong = judged.filter(({ at, left }) => {
    const truth = last.at - at;
    return left > FACTOR * truth + SLACK || truth > FACTOR * left + SLACK;
  });
  const ratios = judged.map(({ at, left }) => (left + SLACK) / (last.at - at + SLACK));
  const worst = Math.max(...ratios.map((ratio) => Math.max(ratio, 1 / ratio)));
  const detail = wrong.map(({ at, left, phase }) => `${phase}: ${left.toFixed(1)} for ${(last.at - at).toFixed(1)} s`);
  return {
    summary: `${whole.toFixed(1)} s, ${judged.length} moments, ${wrong.length} wrong, worst ${worst.toFixed(2)}`,
    wrong: wrong.length > judged.length * SHARE ? detail.join('\n') : '',
  };
}
