/**
 * Makes the PNG icons of the page from www/icons/icon.svg, with the browser's own renderer:
 * `node scripts/icons.mjs` (needs Chromium; CHROMIUM names its program).
 */
import { readFile, writeFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';
import { inRoot } from './lib/paths.mjs';

/** A maskable icon keeps to the inner four fifths, on a ground that fills the whole square. */
const icons = [
  { name: 'icon-180', size: 180, ground: true, scale: 0.86 },
  { name: 'icon-192', size: 192, ground: false, scale: 1 },
  { name: 'icon-512', size: 512, ground: false, scale: 1 },
  { name: 'icon-maskable-512', size: 512, ground: true, scale: 0.86 },
];

const svg = await readFile(inRoot('www/icons/icon.svg'), 'utf8');
const colour = /fill="(#[0-9a-f]{6})"/.exec(svg)?.[1] ?? '';
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});
const page = await browser.newPage();
for (const { name, size, ground, scale } of icons) {
  await page.setViewportSize({ width: size, height: size });
  await page.setContent(
    `<style>html,body{margin:0;height:100%;display:grid;place-items:center;background:${ground ? colour : 'none'}}svg{width:${scale * 100}%}</style>${svg}`,
  );
  await writeFile(inRoot(`www/icons/${name}.png`), await page.screenshot({ omitBackground: true }));
}
await browser.close();
