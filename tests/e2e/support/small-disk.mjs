/** A disk that is soon full. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A disk of so many MiB in memory. @param {import('node:test').TestContext} t @param {number} mib */
export async function smallDisk(t, mib) {
  const place = await mkdtemp(join(tmpdir(), 'vhd-compactor-small-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'tmpfs', place]);
  t.after(async () => {
    execFileSync('umount', ['-l', place]);
    await rm(place, { recursive: true, force: true });
  });
  return place;
}
