/** Differencing images: their parents are found among what was dropped, or asked for by name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as images from './support/images.mjs';
import { cardOf, choose, download, pageSuite, waitFor } from './support/page.mjs';
import { chromium, diskBytes, missing, qemuImg } from './support/programs.mjs';

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

const whole = async () => [
  await suite.file('grandchild.vhd', images.grandchild()),
  await suite.file('base.vhd', images.base()),
  await suite.file('child.vhd', images.child()),
];

test('a chain that is dropped together is recognised', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await choose(page, await whole());
  for (const name of ['grandchild.vhd', 'child.vhd', 'base.vhd']) await waitFor(page, name, 'Ready');
  const youngest = cardOf(page, 'grandchild.vhd');
  await youngest.getByText('About the image').click();
  await youngest.getByText('child.vhd, then base.vhd').waitFor();

  const oldest = cardOf(page, 'base.vhd');
  await oldest.getByRole('button', { name: 'Show the details' }).click();
  await oldest.getByRole('heading', { name: 'Other images are built upon this one' }).waitFor();
  assert.ok(await oldest.getByRole('radio', { name: 'Zeros only' }).isChecked());
});

test('a missing parent is asked for by name, one after the other', { skip: needs }, async (t) => {
  const [grandchild = '', base = '', child = ''] = await whole();
  const page = await suite.open(t);
  await choose(page, [grandchild]);
  await waitFor(page, 'grandchild.vhd', 'Needs its parent');
  const card = cardOf(page, 'grandchild.vhd');
  await card.getByRole('heading', { name: 'This image needs its parent, “child.vhd”' }).waitFor();
  await choose(page, [child]);
  await card.getByRole('heading', { name: 'This image needs its parent, “base.vhd”' }).waitFor();
  await choose(page, [base]);
  await waitFor(page, 'grandchild.vhd', 'Ready');
  await waitFor(page, 'child.vhd', 'Ready');
});

test('without its parent a child can still be looked at', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await choose(page, [await suite.file('alone.vhd', images.child())]);
  await waitFor(page, 'alone.vhd', 'Needs its parent');
  await page.getByRole('button', { name: 'Go on without it' }).click();
  await waitFor(page, 'alone.vhd', 'Ready');
});

test(
  'a chain merges into one image that reads the same',
  { skip: missing({ Chromium: chromium, 'qemu-img': qemuImg }) },
  async (t) => {
    const page = await suite.open(t);
    await choose(page, await whole());
    await waitFor(page, 'grandchild.vhd', 'Ready');
    await cardOf(page, 'grandchild.vhd').getByRole('checkbox', { name: 'Merge with its parents' }).check();
    const to = suite.path('merged.vhd');
    await download(page, 'grandchild.vhd', to);
    const disk = diskBytes(to, 'vpc');
    const firstBytes = Array.from({ length: 16 }, (_, block) => disk[block * (2 << 20)]);
    assert.deepEqual(firstBytes, [1, 0, 0, 9, 5, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  },
);

test(
  'a parent that lost its time is taken on a person’s word, and not before',
  { skip: missing({ Chromium: chromium, 'qemu-img': qemuImg }) },
  async (t) => {
    const page = await suite.open(t);
    const files = [await suite.file('estranged.vhd', images.estranged()), await suite.file('base.vhd', images.base())];
    await choose(page, files);
    const card = cardOf(page, 'estranged.vhd');
    await card.getByRole('heading', { name: 'This parent has another time than its child noted' }).waitFor();
    await card.getByText('what both read together is a mixture').waitFor();
    await card.getByRole('button', { name: 'Nothing was written to it: use this parent' }).click();
    await waitFor(page, 'estranged.vhd', 'Ready');
    await card.getByRole('checkbox', { name: 'Merge with its parents' }).check();
    const to = suite.path('trusted.vhd');
    await download(page, 'estranged.vhd', to);
    const disk = diskBytes(to, 'vpc');
    const firstBytes = Array.from({ length: 16 }, (_, block) => disk[block * (2 << 20)]);
    assert.deepEqual(firstBytes, [1, 0, 0, 9, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    await page.getByRole('link', { name: 'Compare two images' }).click();
    await page.setInputFiles('#file-original', files[0] ?? '');
    await page.setInputFiles('#file-compacted', to);
    await page.setInputFiles('#file-parents', files[1] ?? '');
    await page.getByRole('button', { name: 'Compare', exact: true }).click();
    const outcome = page.locator('#compare-outcome');
    await outcome.getByRole('button', { name: 'Nothing was written to it: use this parent' }).click();
    await page.getByText('They hold the same.').waitFor();
  },
);
