/** Strangers' tools: whether they are here, and how to call them. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { which } from '../../scripts/lib/process.mjs';

// A plain user's PATH on Debian lacks the folder of mkfs and fsck.
process.env.PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

/** For node:test's `skip`: the programs that are missing, or false. */
export function unless(/** @type {string[]} */ ...programs) {
  const missing = programs.filter((program) => !which(program));
  return missing.length > 0 && `${missing.join(' and ')} not installed`;
}

const python = process.env.PYTHON ?? 'python3';

/** For node:test's `skip`: whether Python lacks a module. */
export function unlessPython(/** @type {string} */ module) {
  return spawnSync(python, ['-c', `import ${module}`]).status !== 0 && `Python has no ${module}`;
}

/** Runs a tool that must succeed; gives its stdout. */
export function tool(/** @type {string} */ name, /** @type {string[]} */ ...args) {
  return execFileSync(name, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 26 });
}

export const qemuImg = (/** @type {string[]} */ ...args) => tool('qemu-img', ...args);

/** The SHA-256 of a file, read in pieces. */
export function sha256(/** @type {string} */ file) {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(4 * 1024 * 1024);
  const fd = openSync(file, 'r');
  try {
    for (let n = readSync(fd, buffer); n > 0; n = readSync(fd, buffer)) hash.update(buffer.subarray(0, n));
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

/** The SHA-256 of the virtual disk as libvhdi reads it. */
export function sha256ByLibvhdi(/** @type {string} */ image) {
  const script = `
import hashlib, sys, pyvhdi
image = pyvhdi.file()
image.open(sys.argv[1])
digest, size, at = hashlib.sha256(), image.get_media_size(), 0
while at < size:
    data = image.read_buffer_at_offset(min(4 << 20, size - at), at)
    digest.update(data)
    at += len(data)
print(digest.hexdigest())`;
  return tool(python, '-c', script, image).trim();
}
