/** Every fault that is planted still has its place, once. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { inRoot } from '../../scripts/lib/paths.mjs';
import { planted } from '../planted.mjs';

for (const { what, file, from } of planted) {
  test(`planted fault: ${what}`, () => {
    const places = readFileSync(inRoot(file), 'utf8').split(from).length - 1;
    assert.equal(places, 1, `${from} stands ${places} times in ${file}`);
  });
}
