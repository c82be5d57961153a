/**
 * Names of unfinished files, so that a later run can tell whose they are (Node).
 *
 * ```text
 *   .disk.vhdx.1f0c9a3e-77ab01c2-4711-9d8e7f60.vhd-compactor.tmp
 *    │         │        │        │    └ random
 *    │         │        │        └ the process
 *    │         │        └ this start of the machine (zeros where it cannot be told)
 *    │         └ the machine, and its name space of processes
 *    └ the file that it becomes, cut to fit
 * ```
 * A process that is killed leaves such a file. The next run removes it where the process is surely gone: it ran on
 * this machine, and either the machine was started again since or no process has that number. What another machine
 * made in a shared folder is left alone, since it may still be written.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** Bytes of the file's own name that are kept: a name may have 255 in all, in encrypted folders 143. */
const KEPT_BYTES = 80;
const UNKNOWN = '00000000';
const PATTERN = /\.([0-9a-f]{8})-([0-9a-f]{8})-([1-9]\d{0,9})-[0-9a-f]{8}\.vhd-compactor\.tmp$/;

/**
 * The path of a new unfinished file beside `file`.
 *
 * @param {string} file
 */
export function temporaryBeside(file) {
  const { machine, boot } = here();
  // Where another file has that name after all, making ours fails.
  const unique = `${machine}-${boot}-${process.pid}-${hex8(Math.floor(Math.random() * 2 ** 32))}`;
  return path.join(path.dirname(file), `.${cut(path.basename(file), KEPT_BYTES)}.${unique}.vhd-compactor.tmp`);
}

/**
 * Removes the unfinished files in `folder` whose process is gone. What cannot be removed stays: it harms nobody.
 *
 * @param {string} folder
 */
export function removeAbandoned(folder) {
  try {
    for (const name of fs.readdirSync(folder)) {
      if (name.startsWith('.') && isAbandoned(name)) fs.rmSync(path.join(folder, name), { force: true });
    }
  } catch {
    // A folder may be writable and not readable.
  }
}

/** @param {string} name */
function isAbandoned(name) {
  const [, machine, boot, pid] = PATTERN.exec(name) ?? [];
  const now = here();
  if (machine !== now.machine) return false;
  if (boot !== now.boot && boot !== UNKNOWN && now.boot !== UNKNOWN) return true;
  return !isRunning(Number(pid));
}

/** @param {number} pid */
function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    // Of another user's process it says EPERM.
    return /** @type {NodeJS.ErrnoException} */ (thrown).code !== 'ESRCH';
  }
}

/** @type {{ machine: string, boot: string } | undefined} */
let known;

function here() {
  known ??= {
    // Containers share a machine and, often, the numbers of their processes.
    machine: short([text('/etc/machine-id'), os.hostname(), link('/proc/self/ns/pid')].join('\n')),
    boot: short(text('/proc/sys/kernel/random/boot_id')),
  };
  return known;
}

/**
 * A text as eight digits: FNV-1a, since Node's hashes take longer to load than all that is done here.
 *
 * @param {string} of
 */
function short(of) {
  if (!of) return UNKNOWN;
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(of)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hex8(hash);
}

/** @param {number} value */
const hex8 = (value) => value.toString(16).padStart(8, '0');

/** @param {string} file */
function text(file) {
  try {
    return fs.readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}

/** @param {string} file */
function link(file) {
  try {
    return fs.readlinkSync(file);
  } catch {
    return '';
  }
}

/**
 * The first characters of a name, as many as fit into `bytes` bytes of UTF-8.
 *
 * @param {string} name @param {number} bytes
 */
function cut(name, bytes) {
  let kept = '';
  for (const char of name) {
    if (Buffer.byteLength(kept + char) > bytes) break;
    kept += char;
  }
  return kept;
}
