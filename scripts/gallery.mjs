/**
 * `npm run gallery`: the pictures of the page in docs/images/, taken of the built page at work on a disk like
 * one of WSL. Needs Chromium, mke2fs, debugfs and qemu-img for the disk, and pngquant.
 */
/* global document -- in what runs inside the page */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { main } from './lib/console.mjs';
import { inRoot } from './lib/paths.mjs';
import { preparePage } from './lib/setup.mjs';

/** @import { Page } from 'playwright-core' */

const MIB = 1024 * 1024;
const WIDE = { width: 1280, height: 800 };
const NARROW = { width: 360, height: 780 };

/** @typedef {{ name: string, dark?: boolean, viewport?: { width: number, height: number }, reach: (page: Page) => Promise<unknown> }} Picture */

/** @param {string} disk @returns {Picture[]} */
const pictures = (disk) => [
  { name: 'welcome', reach: (page) => page.getByText('works offline').waitFor() },
  { name: 'estimate', viewport: { width: 1280, height: 1180 }, reach: (page) => analyse(page, disk) },
  { name: 'estimate-dark-narrow', dark: true, viewport: NARROW, reach: (page) => analyse(page, disk) },
  {
    name: 'running-dark',
    dark: true,
    async reach(page) {
      await analyse(page, disk);
      await page.locator('.save .primary').click();
      await page.waitForFunction(() => (document.querySelector('progress')?.position ?? 0) > 0.3);
    },
  },
  {
    name: 'done',
    viewport: { width: 1280, height: 1000 },
    async reach(page) {
      await analyse(page, disk);
      await page.locator('.save .primary').click();
      await page.getByText('Proved to hold the same.').waitFor({ timeout: 120_000 });
      await page.waitForTimeout(600);
    },
  },
];

await main(async () => {
  await preparePage();
  // Not before: both are packages that the line above installs.
  const [{ chromium }, { serve }] = await Promise.all([import('playwright-core'), import('./lib/server.mjs')]);
  const folder = mkdtempSync(join(tmpdir(), 'vhd-compactor-gallery-'));
  const { address, server } = await serve(inRoot('dist'), 0);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox'],
  });
  try {
    const disk = makeDisk(folder);
    mkdirSync(inRoot('docs/images'), { recursive: true });
    for (const { name, dark = false, viewport = WIDE, reach } of pictures(disk)) {
      const page = await browser.newPage({ viewport, colorScheme: dark ? 'dark' : 'light' });
      await page.goto(address);
      await reach(page);
      const path = inRoot(`docs/images/${name}.png`);
      await page.screenshot({ path });
      await page.close();
      execFileSync('pngquant', ['--force', '--ext=.png', '--strip', path]);
      console.log(`docs/images/${name}.png`);
    }
  } finally {
    await browser.close();
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
});

/** @param {Page} page @param {string} disk */
async function analyse(page, disk) {
  await page.setInputFiles('#files', disk);
  await page.waitForFunction(() => document.querySelector('.badge')?.textContent === 'Ready');
  await page.locator('.legend li').first().waitFor();
  await page.waitForFunction(() => ![...document.querySelectorAll('.effect')].some((one) => one.textContent === '…'));
}

/** An ext4 volume of many files, of which a good half was deleted again, in a VHDX. @param {string} folder */
function makeDisk(folder) {
  const files = join(folder, 'files');
  const raw = join(folder, 'ext4.raw');
  const image = join(folder, 'ext4.vhdx');
  mkdirSync(files);
  // Sizes from a short, repeatable sequence.
  const sizes = Array.from({ length: 64 }, (_, index) => 2 + ((index * 7919) % 23));
  sizes.forEach((size, index) => {
    writeFileSync(join(files, `f${index}`), Buffer.alloc(size * MIB, 0xa5 ^ index));
  });
  writeFileSync(raw, '');
  truncateSync(raw, 2048 * MIB);
  const run = (/** @type {string} */ program, /** @type {string[]} */ ...args) =>
    execFileSync(program, args, {
      stdio: 'ignore',
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    });
  run('mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0', '-d', files, raw);
  for (let index = 0; index < sizes.length; index++) {
    if ((index * 5) % 9 < 5) run('debugfs', '-w', '-R', `rm /f${index}`, raw);
  }
  run('qemu-img', 'convert', '-f', 'raw', '-O', 'vhdx', '-o', 'block_size=1M', raw, image);
  return image;
}
