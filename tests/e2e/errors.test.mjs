/** What goes wrong is told in three sentences: what happened, what it means for the data, what to do. */
import assert from 'node:assert/strict';
import { rmSync, utimesSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import * as images from './support/images.mjs';
import { cardOf, choose, pageSuite, waitFor } from './support/page.mjs';
import { chromium, missing } from './support/programs.mjs';

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

/** The first half of a fixed VHD of a disk that boots. */
function cutBootDisk() {
  const disk = images.fixed();
  disk.writeUInt16BE(0x55aa, 510);
  return disk.subarray(0, disk.length / 2);
}

/** @type {{ title: string, name: string, bytes: () => Buffer }[]} */
const refused = [
  { title: 'This is a text file, not a disk image', name: 'letter.vhd', bytes: () => Buffer.alloc(4096, 'Dear all, ') },
  { title: 'The file is empty', name: 'empty.vhdx', bytes: () => Buffer.alloc(0) },
  { title: 'This is a packed file (ZIP)', name: 'zip.vhd', bytes: () => Buffer.alloc(9000, 'PK\x03\x04', 'latin1') },
  { title: 'This is not a VHD or VHDX image', name: 'noise.vhd', bytes: () => Buffer.alloc(4096, 0x81) },
  { title: 'The end of this VHD is missing', name: 'cut.vhd', bytes: () => cutBootDisk() },
  { title: 'The image is damaged', name: 'headers.vhdx', bytes: () => images.sample().fill(0, 65_536, 200_000) },
  { title: 'The file ends too early', name: 'short.vhdx', bytes: () => images.sample().subarray(0, 4 << 20) },
  { title: 'The image uses something that is not handled here', name: 'saved.vhd', bytes: images.saved },
];

for (const { title, name, bytes } of refused) {
  test(`${name}: ${title}`, { skip: needs }, async (t) => {
    const page = await suite.open(t);
    await choose(page, [await suite.file(name, bytes())]);
    await waitFor(page, name, 'Stopped');
    const card = cardOf(page, name);
    await card.getByRole('heading', { name: title }).waitFor();
    for (const slot of ['meaning', 'next']) {
      assert.match(await card.locator(`[data-slot=${slot}]`).innerText(), /\w{3,}.*\.$/);
    }
    await card.locator('.notice summary', { hasText: 'Detail' }).waitFor();
    assert.doesNotMatch(await card.innerText(), /undefined|\[object|TypeError/);
  });
}

test('a file that changes under the page stops the run', { skip: needs }, async (t) => {
  const path = await suite.file('moving.vhd', images.base());
  const page = await suite.open(t);
  await choose(page, [path]);
  await waitFor(page, 'moving.vhd', 'Ready');
  writeFileSync(path, images.child());
  utimesSync(path, new Date(), new Date(Date.now() + 60_000));
  await cardOf(page, 'moving.vhd').getByRole('button', { name: 'Download', exact: true }).click();
  await waitFor(page, 'moving.vhd', 'Stopped');
  await page.getByRole('heading', { name: 'The file changed while it was being read' }).waitFor();
});

test('a file that is gone is told as gone, and no machine is to blame', { skip: needs }, async (t) => {
  const path = await suite.file('gone.vhd', images.base());
  const page = await suite.open(t);
  await choose(page, [path]);
  await waitFor(page, 'gone.vhd', 'Ready');
  rmSync(path);
  await cardOf(page, 'gone.vhd').getByRole('button', { name: 'Download', exact: true }).click();
  await waitFor(page, 'gone.vhd', 'Stopped');
  await page.getByRole('heading', { name: 'The file is no longer there' }).waitFor();
  assert.doesNotMatch(await cardOf(page, 'gone.vhd').innerText(), /shut down/i);
});

test('where WebAssembly is switched off, that is told before anything is dropped', { skip: needs }, async (t) => {
  const page = await suite.open(t, { script: () => Reflect.deleteProperty(window, 'WebAssembly') });
  await page.getByRole('heading', { name: 'WebAssembly is switched off in this browser' }).waitFor();
});

test('names and labels from outside are text, whatever they say', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  const evil = '<img src=x onerror=alert(1)>.vhd';
  await page.setInputFiles('#files', { name: evil, mimeType: '', buffer: images.hostile() });
  await waitFor(page, evil, 'Needs its parent');
  const text = await cardOf(page, evil).innerText();
  assert.match(text, /<b>bold<\/b>/);
  assert.doesNotMatch(text, /\u202e/);
  assert.equal(await page.locator('main img, main b').count(), 0);
});

test('the same file twice is one card', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  const path = await suite.file('once-only.vhd', images.base());
  await choose(page, [path]);
  await waitFor(page, 'once-only.vhd', 'Ready');
  await choose(page, [path]);
  await page.getByText('once-only.vhd is here already.').waitFor();
  assert.equal(await page.locator('.card').count(), 1);
});
