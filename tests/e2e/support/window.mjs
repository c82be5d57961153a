/** A screen of its own (Xvfb) with a window manager, and a hand for the dialogs there (xdotool). */
import { execFileSync, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { which } from './programs.mjs';

export const screenNeeds = { Xvfb: which('Xvfb'), openbox: which('openbox'), xdotool: which('xdotool') };

/** Starts a screen on the first free number. */
export async function openScreen() {
  // Xvfb chooses the number itself and tells it.
  const server = spawn('Xvfb', ['-displayfd', '3', '-screen', '0', '1280x900x24'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  const number = await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('exit', () => reject(new Error('Xvfb did not start')));
    server.stdio[3]?.once('data', (data) => resolve(String(data).trim()));
  });
  const env = { ...process.env, DISPLAY: `:${number}` };
  const manager = spawn('openbox', [], { env, stdio: 'ignore' });
  await sleep(500);

  const hand = (/** @type {string[]} */ ...args) =>
    execFileSync('xdotool', args, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  return {
    env,
    hand,
    /** Waits for a window of that name. @param {string} name */
    async window(name) {
      for (let tries = 100; tries > 0; tries--) {
        try {
          const [id = ''] = hand('search', '--onlyvisible', '--name', name).split('\n');
          if (id) return id;
        } catch {
          // Not yet.
        }
        await sleep(100);
      }
      throw new Error(`no window named ${name}`);
    },
    /** Clicks near a window's lower right corner, where GTK has its last button. @param {string} id */
    clickLastButton(id) {
      const {
        X = '0',
        Y = '0',
        WIDTH = '0',
        HEIGHT = '0',
      } = Object.fromEntries(
        hand('getwindowgeometry', '--shell', id)
          .split('\n')
          .map((line) => line.split('=')),
      );
      hand('mousemove', String(Number(X) + Number(WIDTH) - 50), String(Number(Y) + Number(HEIGHT) - 28), 'click', '1');
    },
    close() {
      manager.kill();
      server.kill();
    },
  };
}
