/** Runs the command as a person would, in a process of its own. */
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const command = fileURLToPath(new URL('../../cli/vhd-compactor.js', import.meta.url));

/** @param {string[]} args @param {import('node:child_process').SpawnSyncOptions} [options] */
export function vhdCompactor(args, options = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], { ...options, encoding: 'utf8' });
  return { status, stdout, stderr };
}

/** With --json: the exit code and the one JSON value on stdout. */
export function asJson(/** @type {string[]} */ ...args) {
  const { status, stdout, stderr } = vhdCompactor([...args, '--json']);
  return { status, stderr, value: JSON.parse(stdout) };
}

/** Starts the command and does not wait. */
export const startVhdCompactor = (/** @type {string[]} */ args) =>
  spawn(process.execPath, [command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
