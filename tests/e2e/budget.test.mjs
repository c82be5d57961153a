/** Small and fast: what the first visit loads, and what Lighthouse says of it. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { brotliCompressSync, constants } from 'node:zlib';
import { serve } from '../../scripts/lib/server.mjs';
import { FLAGS } from './support/page.mjs';
import { chromium, dist, missing } from './support/programs.mjs';

const KIB = 1024;
/** Compressed, over the wire: in all, and before the page can be used. The sample is loaded when it is asked for. */
const WHOLE = 350 * KIB;
const WITHOUT_ENGINE = 80 * KIB;

test('the whole page with the engine stays within its budget', { skip: missing({}) }, (t) => {
  const files = readdirSync(dist).filter((name) => /\.(html|css|js|wasm|webmanifest)$/.test(name));
  const sizes = new Map(files.map((name) => [name, compressed(readFileSync(join(dist, name)))]));
  const sum = (/** @type {(name: string) => boolean} */ which) =>
    [...sizes].reduce((total, [name, size]) => total + (which(name) ? size : 0), 0);
  const whole = sum(() => true);
  const without = sum((name) => !name.endsWith('.wasm'));
  t.diagnostic(`${Math.round(whole / KIB)} KiB, without the engine ${Math.round(without / KIB)} KiB`);
  assert.ok(without <= WITHOUT_ENGINE, `${without} bytes without the engine`);
  assert.ok(whole <= WHOLE, `${whole} bytes in all`);
});

test(
  'Lighthouse: 100 for performance, accessibility and best practices',
  { skip: missing({ Chromium: chromium }), timeout: 120_000 },
  async (t) => {
    const { default: lighthouse } = await import('lighthouse');
    const { launch } = await import('chrome-launcher');
    const { address, server } = await serve(dist, 0);
    const browser = await launch({
      chromePath: chromium ?? undefined,
      chromeFlags: ['--headless=new', ...FLAGS],
      logLevel: 'silent',
    });
    t.after(async () => {
      browser.kill();
      server.closeAllConnections();
      server.close();
    });
    const result = await lighthouse(address, {
      port: browser.port,
      logLevel: 'silent',
      onlyCategories: ['performance', 'accessibility', 'best-practices'],
    });
    const categories = Object.values(result?.lhr.categories ?? {});
    const scores = Object.fromEntries(categories.map(({ id, score }) => [id, Math.round((score ?? 0) * 100)]));
    t.diagnostic(JSON.stringify(scores));
    const lost = Object.values(result?.lhr.audits ?? {})
      .filter(({ score, scoreDisplayMode }) => score !== null && score < 1 && scoreDisplayMode === 'binary')
      .map(({ id, title }) => `${id}: ${title}`);
    assert.equal(scores.accessibility, 100, lost.join('; '));
    assert.equal(scores['best-practices'], 100, lost.join('; '));
    // The score of a busy machine wavers by a point or two.
    assert.ok((scores.performance ?? 0) >= 95, `performance ${scores.performance}`);
  },
);

/** @param {Buffer} bytes */
const compressed = (bytes) =>
  brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  }).length;
