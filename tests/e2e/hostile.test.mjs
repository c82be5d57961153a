/** Names of files, partitions and parents that would deceive or run: on the page they are text, and all of it is seen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DECEIVES, diskWithPartition, hostileNames } from '../support/hostile-names.mjs';
import { dynamicVhd } from '../support/vhd.mjs';
import { pageSuite } from './support/page.mjs';
import { chromium, missing } from './support/programs.mjs';

const suite = pageSuite();
const needs = missing({ Chromium: chromium });

/** A child of a parent called so. @param {string} name @param {string} id */
const orphan = (name, id) =>
  dynamicVhd({ blocks: 4, stored: { 0: 1 }, id, parent: { id: 'bb'.repeat(16), name: `C:\\${name}` } });

const kinds = /** @type {const} */ ([
  ['a partition', (/** @type {string} */ name) => diskWithPartition(name), 'Ready'],
  ['a parent', orphan, 'Needs its parent'],
]);

for (const [kind, image, state] of kinds) {
  test(`${kind} and a file of hostile names`, { skip: needs }, async (t) => {
    const page = await suite.open(t);
    page.on('dialog', () => assert.fail('a name ran'));
    const names = Object.values(hostileNames);
    const files = names.map((name, n) => ({
      // A browser takes no zero in a name; the one in the image stays.
      name: name.replaceAll('\0', ''),
      mimeType: '',
      buffer: image(name, n.toString(16).padStart(32, '0')),
    }));
    // No more than 50 MB cross to the browser at once.
    const half = files.length / 2;
    for (const some of [files.slice(0, half), files.slice(half)]) await page.setInputFiles('#files', some);
    await page
      .locator('.card', { hasText: state })
      .nth(names.length - 1)
      .waitFor();
    await page.evaluate(() =>
      document.querySelectorAll('.card details').forEach((details) => details.setAttribute('open', '')),
    );
    const { text, attributes, elements } = await page.evaluate(() => ({
      text: document.body.innerText,
      attributes: [...document.querySelectorAll('main *')].flatMap((element) =>
        [...element.attributes].map(({ name, value }) => ({ name, value })),
      ),
      elements: document.querySelectorAll('main img, main b, main script, main style, main title, main [onmouseover]')
        .length,
    }));
    for (const line of text.split(/[\n\t]/)) assert.doesNotMatch(line, DECEIVES);
    for (const { name, value } of attributes) {
      assert.doesNotMatch(value.replaceAll('\t', ''), DECEIVES, name);
      assert.doesNotMatch(name, /^on/);
    }
    assert.equal(elements, 0, 'a name became an element');
    assert.match(text, /⟨U\+202E⟩/);
    assert.match(text, /<script>alert/);
    assert.doesNotMatch(await page.title(), DECEIVES);
  });
}
