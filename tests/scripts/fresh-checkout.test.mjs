/**
 * What a person runs on a fresh checkout loads before anything is installed: no script reaches a package by an import
 * that Node resolves at start.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import test from 'node:test';
import { inRoot } from '../../scripts/lib/paths.mjs';

/** The modules that a file imports or re-exports statically. @param {string} source @returns {string[]} */
const importsOf = (source) =>
  [...source.matchAll(/^(?:import|export)\s(?:[^'";]*?\sfrom\s+)?['"]([^'"]+)['"]/gm)].map((match) => match[1] ?? '');

/**
 * The packages that are reached from a file by static imports, each with the file that asks for it.
 * @param {string} entry @returns {string[]}
 */
function packagesReachedFrom(entry) {
  const seen = new Set([entry]);
  const packages = [];
  for (const file of seen) {
    for (const wanted of importsOf(readFileSync(file, 'utf8'))) {
      if (wanted.startsWith('node:')) continue;
      if (wanted.startsWith('.')) seen.add(join(dirname(file), wanted));
      else packages.push(`${wanted} by ${relative(inRoot('.'), file)}`);
    }
  }
  return packages;
}

/** @type {{ scripts: Record<string, string> }} */
const { scripts } = JSON.parse(readFileSync(inRoot('package.json'), 'utf8'));

for (const [name, command] of Object.entries(scripts)) {
  test(`npm run ${name} loads before any package is installed`, () => {
    const entry = /^node (\S+\.mjs)/.exec(command)?.[1];
    assert.ok(entry !== undefined && existsSync(inRoot(entry)), `${command} names no script of this project`);
    assert.deepEqual(packagesReachedFrom(inRoot(entry)), []);
  });
}

test('static imports are found in each of their forms', () => {
  const source = [
    "import 'a';",
    "import b from 'b';",
    'import {\n  one,\n  two,\n} from "c";',
    "export * from 'd';",
    "export { e } from 'e';",
    "  const { f } = await import('f');",
  ].join('\n');
  assert.deepEqual(importsOf(source), ['a', 'b', 'c', 'd', 'e']);
});
