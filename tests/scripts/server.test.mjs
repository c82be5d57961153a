import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { serve } from '../../scripts/lib/server.mjs';

let scratch = '';
/** @type {Awaited<ReturnType<typeof serve>>} */
let running;
before(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'vhd-compactor-server-'));
  mkdirSync(join(scratch, 'dist'));
  writeFileSync(join(scratch, 'dist', 'index.html'), '<!doctype html>');
  writeFileSync(join(scratch, 'dist', 'a.wasm'), '\0asm');
  writeFileSync(join(scratch, 'dist', 'a.vhdx.gz'), 'packed');
  writeFileSync(join(scratch, 'secret'), 'secret');
  running = await serve(join(scratch, 'dist'), 0);
});
after(() => {
  running.server.close();
  rmSync(scratch, { recursive: true });
});

test('serves the page and its types', async () => {
  const page = await fetch(running.address);
  assert.equal(page.status, 200);
  assert.equal(page.headers.get('content-type'), 'text/html; charset=utf-8');
  assert.equal(await page.text(), '<!doctype html>');
  const wasm = await fetch(`${running.address}a.wasm?x=1`, { method: 'HEAD' });
  assert.equal(wasm.headers.get('content-type'), 'application/wasm');
  assert.equal(wasm.headers.get('content-length'), '4');
  // The page unpacks its sample itself.
  const packed = await fetch(`${running.address}a.vhdx.gz`);
  assert.equal(packed.headers.get('content-encoding'), null);
});

test('serves nothing else', async () => {
  for (const path of ['/nothing', '/../secret', '/%2e%2e/secret', '/..%2fsecret']) {
    assert.ok([403, 404].includes(await statusOf(path)), path);
  }
});

test('takes the next port when one is busy', async () => {
  const port = Number(new URL(running.address).port);
  const second = await serve(join(scratch, 'dist'), port);
  second.server.close();
  assert.notEqual(Number(new URL(second.address).port), port);
});

/** The status of a path as it stands: fetch would resolve the dots first. */
function statusOf(/** @type {string} */ path) {
  return new Promise((resolve, reject) => {
    const { port } = new URL(running.address);
    request({ host: 'localhost', port, path }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('error', reject)
      .end();
  });
}
