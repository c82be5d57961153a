/** The programs that the tests of the page use, where they are there. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { inRoot } from '../../../scripts/lib/paths.mjs';

/** @param {...string} names the first that is found wins */
export function which(...names) {
  const folders = (process.env.PATH ?? '').split(delimiter);
  for (const name of names) {
    for (const folder of folders) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not in this folder.
      }
    }
  }
  return null;
}

export const chromium = process.env.CHROMIUM ?? which('chromium', 'chromium-browser', 'google-chrome');
export const firefox = process.env.FIREFOX ?? which('firefox-esr', 'firefox');
export const qemuImg = which('qemu-img');
export const dist = inRoot('dist');

/** Why a test cannot run, or false: the form that node:test takes. @param {Record<string, unknown>} needs */
export function missing(needs) {
  const absent = Object.entries({ 'a built page (npm run build)': existsSync(join(dist, 'index.html')), ...needs })
    .filter(([, found]) => !found)
    .map(([name]) => name);
  return absent.length > 0 ? `needs ${absent.join(' and ')}` : false;
}

/** Whether an independent reader finds the same bytes in two images. @param {string} one @param {string} other @param {'vpc' | 'vhdx'} format */
export function sameDisk(one, other, format) {
  if (!qemuImg) throw new Error('qemu-img is not here');
  execFileSync(qemuImg, ['compare', '-q', '-f', format, '-F', format, one, other]);
}

/** The bytes of the disk, as an independent reader sees them. @param {string} image @param {'vpc' | 'vhdx'} format */
export function diskBytes(image, format) {
  if (!qemuImg) throw new Error('qemu-img is not here');
  const raw = `${image}.raw`;
  execFileSync(qemuImg, ['convert', '-f', format, '-O', 'raw', image, raw]);
  return readFileSync(raw);
}
