/** The way most people go: drop or choose an image, look at the estimate, download the new one. */
import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { unless } from '../support/tools.mjs';
import * as images from './support/images.mjs';
import { cardOf, choose, download, drop, pageSuite, waitFor } from './support/page.mjs';
import { chromium, diskBytes, missing, qemuImg, sameDisk } from './support/programs.mjs';

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

test('the sample: estimate, download, proof; only deleted data is gone', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await page.getByRole('button', { name: 'Try it with a sample' }).click();
  await waitFor(page, 'sample.vhdx', 'Ready');
  const card = cardOf(page, 'sample.vhdx');
  assert.match(await card.innerText(), /VHDX, dynamic · a 48\sMB disk in a 3\d\sMB file/);
  assert.match(await card.innerText(), /FAT16\s+PICTURES/);
  assert.match(await card.innerText(), /ext4\s+home/);
  assert.match(
    (await card.locator('canvas[role=img]').getAttribute('aria-label')) ?? '',
    /in use [\d.]+\sMB \(\d+\s% of what is stored\), .*free [\d.]+\sMB/,
  );

  const to = suite.path('sample-out.vhdx');
  assert.equal(await download(page, 'sample.vhdx', to), 'sample-compacted.vhdx');
  await waitFor(page, 'sample.vhdx', 'Made');
  assert.match(await card.innerText(), /Proved to hold the same/);
  // What the browser makes of it is not known yet.
  assert.doesNotMatch(await card.innerText(), /was read back/);
  assert.ok(statSync(to).size < images.sample().length * 0.6, 'it became much smaller');

  await t.test('judged by qemu-img', { skip: missing({ 'qemu-img': qemuImg }) }, async () => {
    const before = diskBytes(await suite.file('sample.vhdx', images.sample()), 'vhdx');
    const now = diskBytes(to, 'vhdx');
    assert.equal(now.length, before.length);
    for (let at = 0; at < before.length; at += 512) {
      const old = before.subarray(at, at + 512);
      const gone = !old.equals(now.subarray(at, at + 512));
      // What was deleted says so: the sample's recipe fills it with these words.
      if (gone) assert.match(old.toString('latin1', 0, 4), /old|del/, `sector at ${at}`);
    }
  });
});

test(
  'zeros only: every byte of the disk reads as before',
  { skip: missing({ Chromium: chromium, 'qemu-img': qemuImg }) },
  async (t) => {
    const source = await suite.file('zeros.vhdx', images.sample());
    const page = await suite.open(t);
    await choose(page, [source]);
    await waitFor(page, 'zeros.vhdx', 'Ready');
    await page.getByRole('radio', { name: 'Zeros only' }).check();
    await page.locator('.figures', { hasText: 'or less' }).waitFor();
    const to = suite.path('zeros-out.vhdx');
    await download(page, 'zeros.vhdx', to);
    sameDisk(source, to, 'vhdx');
  },
);

test('a real drop keeps the handle of the file; a dropped folder is explained', { skip: needs }, async (t) => {
  const source = await suite.file('dropped.vhd', images.base());
  const page = await suite.open(t, {
    script: () => {
      const prototype = /** @type {any} */ (DataTransferItem.prototype);
      const original = prototype.getAsFileSystemHandle;
      prototype.getAsFileSystemHandle = async function asked() {
        const handle = await original.call(this);
        document.documentElement.dataset.handle = handle.name;
        return handle;
      };
    },
  });
  await drop(page, [suite.path('.')]);
  await page.getByText('Only files can be dropped here.').waitFor();
  await drop(page, [source]);
  await waitFor(page, 'dropped.vhd', 'Ready');
  assert.equal(await page.evaluate(() => document.documentElement.dataset.handle), 'dropped.vhd');
  const to = suite.path('dropped-out.vhd');
  assert.equal(await download(page, 'dropped.vhd', to), 'dropped-compacted.vhd');
  assert.ok(statSync(to).size < statSync(source).size / 2);
});

test('a fixed image asks first, and becomes dynamic only when told so', { skip: needs }, async (t) => {
  const source = await suite.file('fixed.vhd', images.fixed());
  const page = await suite.open(t);
  await choose(page, [source]);
  await waitFor(page, 'fixed.vhd', 'Ready');
  const card = cardOf(page, 'fixed.vhd');
  const save = card.getByRole('button', { name: 'Download', exact: true });
  assert.ok(await save.isDisabled(), 'the question comes first');
  await card.getByRole('radio', { name: 'No, leave it' }).check();
  await card.getByText('With these choices there is nothing to save.').waitFor();
  assert.ok(await save.isDisabled());
  await card.getByRole('radio', { name: 'Yes' }).check();
  const to = suite.path('fixed-out.vhd');
  await download(page, 'fixed.vhd', to);
  assert.ok(statSync(to).size < 6 << 20);
  if (qemuImg) sameDisk(source, to, 'vpc');
});

test('an option shows at once what it changes', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await choose(page, [await suite.file('options.vhdx', images.sample())]);
  await waitFor(page, 'options.vhdx', 'Ready');
  const card = cardOf(page, 'options.vhdx');
  const to = card.locator('.figures .to');
  const before = await to.innerText();
  await card.getByRole('radio', { name: 'Zeros only' }).check();
  await page.waitForFunction((old) => document.querySelector('.figures .to')?.textContent !== old, before);
  await card.getByRole('radio', { name: 'VHD', exact: true }).check();
  await page.waitForFunction(() => {
    const name = /** @type {HTMLInputElement | null} */ (document.querySelector('input[type=text]'));
    return name?.value === 'options-compacted.vhd';
  });
});

test('where nothing is to be gained, nothing is written', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  const to = suite.path('small-once.vhd');
  await choose(page, [await suite.file('once.vhd', images.base())]);
  await waitFor(page, 'once.vhd', 'Ready');
  await download(page, 'once.vhd', to);
  await choose(page, [to]);
  await waitFor(page, 'small-once.vhd', 'Ready');
  const card = cardOf(page, 'small-once.vhd');
  await card.getByRole('button', { name: 'Download', exact: true }).click();
  await waitFor(page, 'small-once.vhd', 'Nothing to gain');
});

test('the report and the log can be saved', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await choose(page, [await suite.file('logged.vhd', images.base())]);
  await waitFor(page, 'logged.vhd', 'Ready');
  await download(page, 'logged.vhd', suite.path('logged-out.vhd'));
  await waitFor(page, 'logged.vhd', 'Made');
  const save = async (/** @type {string} */ name) => {
    const arriving = page.waitForEvent('download');
    await page.getByRole('button', { name }).click();
    return readFileSync((await (await arriving).path()) ?? '', 'utf8');
  };
  const report = JSON.parse(await save('Save the report'));
  assert.equal(report.verified, true);
  assert.equal(report.inputSize, images.base().length);
  assert.match(await save('Save the log'), /^\d{4}-\d\d-\d\dT.*info .*logged\.vhd/m);
});

test('several images wait in line and are all done', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  const names = ['one.vhd', 'two.vhd', 'three.vhdx'];
  await choose(page, [
    await suite.file('one.vhd', images.base()),
    await suite.file('two.vhd', images.base()),
    await suite.file('three.vhdx', images.sample()),
  ]);
  for (const name of names) await waitFor(page, name, 'Ready');
  /** @type {string[]} */
  const arrived = [];
  page.on('download', (one) => arrived.push(one.suggestedFilename()));
  await page.getByRole('button', { name: 'Download all' }).click();
  for (const name of names) await waitFor(page, name, 'Made');
  assert.deepEqual(arrived.sort(), ['one-compacted.vhd', 'three-compacted.vhdx', 'two-compacted.vhd']);
});

test(
  'what could cost a person their files is said again when the new image is made',
  { skip: needs || unless('mkfs.ext4', 'sfdisk') },
  async (t) => {
    const page = await suite.open(t);
    await choose(page, [await suite.file('lost.vhd', images.underPartitionTable())]);
    await waitFor(page, 'lost.vhd', 'Ready');
    const card = cardOf(page, 'lost.vhd');
    const alarm = card.getByRole('heading', { name: 'A partition table was written over' });
    await alarm.waitFor();
    await card.getByRole('radio', { name: 'Yes' }).check();
    await card.getByRole('button', { name: 'Download', exact: true }).click();
    await waitFor(page, 'lost.vhd', 'Made');
    await alarm.waitFor();
  },
);
