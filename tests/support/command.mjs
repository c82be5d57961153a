/** Runs the command as a person would, in a process of its own. */
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const command = fileURLToPath(new URL('../../cli/vhd-compactor.js', import.meta.url));

/** @param {string[]} args @param {{ cwd?: string }} [options] */
export function vhdCompactor(args, options = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], { encoding: 'utf8', ...options });
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
