/** Saving by the real ways, in a plain window: what automation would answer for the person is left open here. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeDynamicVhd } from '../support/vhd.mjs';
import * as images from './support/images.mjs';
import { ownFolder } from './support/own-folder.mjs';
import { arrived, cardsIn, give, plainWindow, press, until } from './support/plain.mjs';
import { chromium, missing, qemuImg } from './support/programs.mjs';
import { smallDisk } from './support/small-disk.mjs';
import { screenNeeds } from './support/window.mjs';

/** @import { Page } from 'puppeteer-core' */

const needs = missing({ Chromium: chromium, ...screenNeeds });
const GIB = 1024 ** 3;

const textOf = (/** @type {Page} */ page) => page.$eval('main', (main) => /** @type {HTMLElement} */ (main).innerText);

test(
  'several downloads: only the first arrives until a person answers, and the page claims no more',
  { skip: needs, timeout: 180_000 },
  async (t) => {
    const { page, folder, saved } = await plainWindow(t);
    const paths = [];
    for (const n of [1, 2, 3]) {
      paths.push(join(folder, `disk-${n}.vhd`));
      await writeFile(join(folder, `disk-${n}.vhd`), images.base());
    }
    await give(page, paths);
    await cardsIn(page, 'Ready', 3);
    assert.match(await textOf(page), /asks whether this page may download several files/, 'it is said beforehand');
    await press(page, 'Download all');
    await cardsIn(page, 'Made', 3);
    await until(async () => arrived(saved).length > 0);
    await sleep(3000);
    t.diagnostic(`arrived: ${arrived(saved).join(', ')}`);
    assert.ok(arrived(saved).length < 3, 'the browser holds the others back');
    const text = await textOf(page);
    assert.match(text, /3 new images made/);
    assert.match(text, /only the browser’s downloads list tells/);
    assert.doesNotMatch(text, /\bSaved\b|is saving/);
    assert.match(text, /Save all to a folder…/, 'the way that needs no answer is still there');
  },
);

test(
  'several downloads that were blocked once: the page claims none, and the folder still takes all',
  { skip: needs, timeout: 180_000 },
  async (t) => {
    const { page, folder, saved } = await plainWindow(t, { isBlocked: true });
    await page.evaluate(ownFolder);
    const names = [1, 2, 3].map((n) => `disk-${n}.vhd`);
    for (const name of names) await writeFile(join(folder, name), images.base());
    await give(
      page,
      names.map((name) => join(folder, name)),
    );
    await cardsIn(page, 'Ready', 3);
    await press(page, 'Download all');
    await cardsIn(page, 'Made', 3);
    await press(page, 'Download again');
    await sleep(3000);
    t.diagnostic(`arrived: ${arrived(saved).join(', ')}`);
    assert.ok(arrived(saved).length < 3, 'the browser blocks, and asks nobody');
    const text = await textOf(page);
    assert.match(text, /only the browser’s downloads list tells/);
    assert.doesNotMatch(text, /\bSaved\b|is saving/);
    await press(page, 'Save all to a folder…');
    await cardsIn(page, 'Saved', 3);
  },
);

test('a download of more than 4 GiB arrives whole', { skip: needs, timeout: 600_000 }, async (t) => {
  const { page, folder, saved } = await plainWindow(t);
  const source = join(folder, 'large.vhd');
  const count = 2100;
  // Each block holds one byte that is not zero, and the rest is a hole of the source.
  const blocks = Object.fromEntries(Array.from({ length: count }, (_, n) => [n * 2, Buffer.from([1 + (n % 255)])]));
  writeDynamicVhd(source, { size: count * 4 * 1024 ** 2, blocks, blockSize: 2 * 1024 ** 2 });
  await give(page, [source]);
  await cardsIn(page, 'Ready');
  // Half of the disk is stored, all of it is in use: made again as it is, by a change of format.
  await page.evaluate(() => {
    document.querySelectorAll('.ready details').forEach((one) => one.setAttribute('open', ''));
  });
  const other = await until(async () => page.$('input[type=radio][value=vhdx]'));
  await other.evaluate((radio) => /** @type {HTMLElement} */ (radio).click());
  const block = await page.$('input[type=radio][value=keep]');
  await block?.evaluate((radio) => /** @type {HTMLElement} */ (radio).click());
  await sleep(1000);
  await press(page, 'Download');
  await cardsIn(page, 'Made', 1, 400_000);
  const name = await until(async () => arrived(saved)[0], 300);
  const size = statSync(join(saved, name)).size;
  t.diagnostic(`${name}: ${size} bytes`);
  assert.ok(size > 4 * GIB, `${size} bytes`);
  if (qemuImg) execFileSync(qemuImg, ['check', '-q', '-f', 'vhdx', join(saved, name)]);
});

test(
  'a download onto a full disk: the page claims nothing, and the check tells',
  { skip: needs || (process.getuid?.() !== 0 && 'needs root for a small disk'), timeout: 180_000 },
  async (t) => {
    const small = await smallDisk(t, 2);
    const { page, folder } = await plainWindow(t, { downloads: small });
    const source = join(folder, 'disk.vhd');
    await writeFile(source, images.base());
    await give(page, [source]);
    await cardsIn(page, 'Ready');
    await press(page, 'Download');
    await cardsIn(page, 'Made');
    await sleep(2000);
    assert.deepEqual(arrived(small), [], 'the browser could not save it');
    assert.doesNotMatch(await textOf(page), /\bSaved\b/);
    const part = join(folder, 'part.vhd');
    await writeFile(part, images.base().subarray(0, 1 << 20));
    const input = await page.$('.saved input[type=file]');
    await /** @type {any} */ (input).uploadFile(part);
    await until(async () => /That file is not what was made/.test(await textOf(page)));
  },
);
