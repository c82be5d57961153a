/**
 * The licences of everything that a built page carries: its own, those of the npm packages in the bundles
 * and of the crates in the engine. Read from the packages themselves, so that none is forgotten.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { inRoot } from './paths.mjs';

/** @typedef {{ name: string, version: string, licence: string, texts: string[] }} Part */

const TARGET = 'wasm32-unknown-unknown';
const LICENCE_FILE = /^(licen[cs]e|copying|notice|unlicense)/i;
const RULE = '='.repeat(100);

/** What rustc links in, and no package manager tells of. @type {Part} */
const RUST = {
  name: 'The Rust standard library',
  version: '',
  licence: 'MIT OR Apache-2.0',
  texts: [
    [
      'Copyright (c) The Rust Project Contributors. https://www.rust-lang.org/policies/licenses',
      'Used here under the Apache License 2.0, whose text stands with other parts in this file.',
    ].join('\n'),
  ],
};

/**
 * The whole text.
 * @param {string[]} folders of the npm packages in the bundles
 */
export function licences(folders) {
  const { name, version, license } = manifest(inRoot());
  const own = { name, version, licence: license, texts: textsIn(inRoot()) };
  const parts = [own, RUST, ...crates(), ...folders.map(npmPackage)].map(withText);
  // Many parts share a text: each is printed once, under the names of all that use it.
  /** @type {Map<string, string[]>} */
  const users = new Map();
  for (const part of parts) {
    for (const text of part.texts) users.set(text, [...(users.get(text) ?? []), titleOf(part)]);
  }
  return [
    'This page and everything in it\n',
    ...parts.map((part) => `  ${titleOf(part)}: ${part.licence}`),
    ...[...users].map(([text, names]) => `\n${RULE}\n${names.join('\n')}\n${RULE}\n\n${text}`),
    '',
  ].join('\n');
}

/** Some packages name their licence and bring no copy of it. @param {Part} part @returns {Part} */
const withText = (part) =>
  part.texts.length > 0
    ? part
    : { ...part, texts: [`Under ${part.licence}, without a copy of its own; the texts stand with other parts here.`] };

/** @param {Part} part */
const titleOf = ({ name, version }) => `${name} ${version}`.trim();

/**
 * The crates that are compiled into the engine: normal dependencies, without what only runs while building.
 * @returns {Part[]}
 */
function crates() {
  const args = ['metadata', '--locked', '--format-version', '1', '--filter-platform', TARGET];
  const metadata = JSON.parse(
    execFileSync('cargo', args, {
      cwd: inRoot(),
      encoding: 'utf8',
      maxBuffer: 64 << 20,
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  );
  const packages = new Map(metadata.packages.map((/** @type {any} */ one) => [one.id, one]));
  const nodes = new Map(metadata.resolve.nodes.map((/** @type {any} */ one) => [one.id, one]));
  const isMacro = (/** @type {string} */ id) =>
    packages.get(id).targets.some((/** @type {any} */ target) => target.kind.includes('proc-macro'));
  const isNormal = (/** @type {any} */ dependency) =>
    dependency.dep_kinds.some((/** @type {any} */ { kind }) => kind === null);

  const seen = new Set([metadata.resolve.root]);
  for (const id of seen) {
    const reached = nodes
      .get(id)
      .deps.filter(isNormal)
      .map((/** @type {any} */ one) => one.pkg);
    for (const next of reached) if (!isMacro(next)) seen.add(next);
  }
  seen.delete(metadata.resolve.root);
  return [...seen]
    .map((id) => packages.get(id))
    .map((one) => ({
      name: one.name,
      version: one.version,
      licence: one.license ?? 'see its text',
      texts: textsIn(dirname(one.manifest_path)),
    }))
    .sort((one, other) => one.name.localeCompare(other.name));
}

/** @param {string} folder @returns {Part} */
function npmPackage(folder) {
  const { name, version, license } = manifest(folder);
  return { name, version, licence: license, texts: textsIn(folder) };
}

const manifest = (/** @type {string} */ folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));

/** @param {string} folder @returns {string[]} */
function textsIn(folder) {
  const files = readdirSync(folder, { withFileTypes: true }).filter(
    (one) => one.isFile() && LICENCE_FILE.test(one.name),
  );
  return files.map(({ name }) => readFileSync(join(folder, name), 'utf8').replaceAll('\r\n', '\n').trim());
}
