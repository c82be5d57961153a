/** What is handed to a host: licences, headers, packed files; and what a person can take away. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { inRoot } from '../../scripts/lib/paths.mjs';
import { DECEIVES, hostileNames } from '../support/hostile-names.mjs';
import { faultReport } from '../../www/ui/fault.js';
import * as images from './support/images.mjs';
import { choose, pageSuite, waitFor } from './support/page.mjs';
import { chromium, dist, missing } from './support/programs.mjs';

const suite = pageSuite();
const needs = missing({ Chromium: chromium });
const built = { skip: missing({}) };
const text = (/** @type {string} */ name) => readFileSync(join(dist, name), 'utf8');

test('the licences of everything inside are there', built, () => {
  const licences = text('licences.txt');
  const tree = execFileSync(
    'cargo',
    ['tree', '--target', 'wasm32-unknown-unknown', '-e', 'normal,no-proc-macro', '--prefix', 'none', '-f', '{p}'],
    { cwd: inRoot(), encoding: 'utf8' },
  );
  const crates = new Set(
    [...tree.matchAll(/^([\w-]+) v([\w.+-]+)/gm)].map(([, name, version]) => `${name} ${version}`),
  );
  assert.ok(crates.size > 10);
  for (const part of [...crates, 'idb-keyval', 'workbox-precaching', 'workbox-core']) {
    // Named in the list, and above a text of its own.
    assert.ok(licences.split(part).length >= 3, part);
  }
  assert.match(licences, /Permission is hereby granted, free of charge/);
  assert.match(licences, /Apache License\s+Version 2\.0/);
});

test('packed files hold what the plain ones hold', built, () => {
  const plain = readdirSync(dist).filter((name) => /\.(html|js|css|wasm|webmanifest)$/.test(name));
  assert.ok(plain.length >= 6);
  for (const name of plain) {
    const bytes = readFileSync(join(dist, name));
    assert.ok(brotliDecompressSync(readFileSync(join(dist, `${name}.br`))).equals(bytes), name);
    assert.ok(gunzipSync(readFileSync(join(dist, `${name}.gz`))).equals(bytes), name);
  }
});

test('the headers for a host are the page’s own policy, and forbid framing', built, () => {
  const headers = text('_headers');
  const policy = /http-equiv="?Content-Security-Policy"?\s+content="([^"]+)"/.exec(text('index.html'))?.[1];
  assert.ok(policy);
  assert.ok(headers.includes(`Content-Security-Policy: ${policy}; frame-ancestors 'none'\n`));
  for (const name of readdirSync(dist).filter((file) => /\.[0-9a-f]{12,}\.(js|css|wasm)$/.test(file))) {
    assert.match(headers, new RegExp(`^/${name}\\n  Cache-Control: .*immutable`, 'm'));
  }
  assert.match(headers, /^\/sw\.js\n {2}Cache-Control: no-cache/m);
});

test('a fault report holds the figures and no name, and nothing is sent', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await choose(page, [await suite.file('secret-project.vhdx', images.sample())]);
  await waitFor(page, 'secret-project.vhdx', 'Ready');
  await page.getByRole('button', { name: 'Report a fault' }).click();
  const report = await page.locator('#fault-text').inputValue();
  assert.match(report, /^VHD Compactor \d+\.\d+\.\d+/);
  assert.match(report, /"blockSize": 1048576/);
  for (const name of ['secret-project', 'PICTURES', 'home"']) assert.ok(!report.includes(name), name);
  await page.keyboard.press('Escape');
  assert.ok(await page.locator('#fault').isHidden());
});

test('names inside sentences are left out of a fault report, too', () => {
  const image = /** @type {any} */ ({
    state: 'failed',
    file: { name: 'payroll.vhdx', size: 5 },
    choices: {},
    parents: [],
    report: { volumes: [{ label: 'Müller', name: null }], parent: { paths: ['C:\\VMs\\base.vhdx'] }, identity: '{12}' },
    error: { code: 'corrupt', message: 'payroll.vhdx: volume "Müller" wants C:\\VMs\\base.vhdx', site: null },
    outcome: null,
    log: [{ time: 't', level: 'info', message: 'Opened payroll.vhdx: 5 bytes.' }],
  });
  const report = faultReport([image], '1.2.3', 'browser');
  assert.doesNotMatch(report, /payroll|Müller|VMs|base/);
  assert.match(report, /"code":"corrupt".*left out/);
});

test('no hostile name gets into a fault report, nor the characters that deceive', () => {
  for (const [what, name] of Object.entries(hostileNames)) {
    const image = /** @type {any} */ ({
      state: 'failed',
      file: { name: `1${name}`, size: 5 },
      choices: {},
      parents: [{ file: { name: `2${name}` } }],
      report: { volumes: [{ label: `3${name}`, name: null }], parent: { paths: [`4${name}`] }, identity: '{12}' },
      error: { code: 'corrupt', message: `1${name}, 2${name}, 3${name} and 4${name}\u202e`, site: null },
      outcome: null,
      log: [{ time: 't', level: 'info', message: `Opened 1${name}: 5 bytes.\u001b[2J` }],
    });
    const report = faultReport([image], '1.2.3', 'browser');
    assert.ok(!report.includes(name) && !report.includes(JSON.stringify(name).slice(1, -1)), what);
    assert.match(report, /"message":"\(left out\), \(left out\), \(left out\) and \(left out\)/, what);
    assert.doesNotMatch(report, DECEIVES, what);
  }
});

test('where each program keeps its disk, and how it is stopped, can be copied', { skip: needs }, async (t) => {
  const page = await suite.open(t, { permissions: ['clipboard-read', 'clipboard-write'] });
  await page.getByRole('button', { name: 'Docker Desktop' }).click();
  await page.getByText('docker_data.vhdx').waitFor();
  await page.getByRole('button', { name: 'Copy: wsl --shutdown' }).click();
  await page.getByText('Copied').waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'wsl --shutdown');
  await page.getByRole('button', { name: 'WSL', exact: true }).click();
  assert.ok(await page.getByText('docker_data.vhdx').isHidden(), 'one at a time');
});

test('printed, a card is a report without anything to press', { skip: needs }, async (t) => {
  const page = await suite.open(t);
  await page.getByRole('button', { name: 'Try it with a sample' }).click();
  await waitFor(page, 'sample.vhdx', 'Ready');
  await page.emulateMedia({ media: 'print' });
  for (const gone of ['#pick', '.save', '.where', '[data-slot=remove]']) {
    assert.ok(await page.locator(gone).first().isHidden(), gone);
  }
  for (const kept of ['.figures', '.map-canvas', '.volumes']) {
    assert.ok(await page.locator(kept).first().isVisible(), kept);
  }
});
