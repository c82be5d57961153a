/** The JavaScript tools: `npm ci` when node_modules is absent or is not what package-lock.json says. */
import { existsSync, readFileSync } from 'node:fs';
import { announce } from './console.mjs';
import { inRoot } from './paths.mjs';
import { npm } from './process.mjs';

export async function ensureNodeModules() {
  if (installed()) return;
  await announce('Installing the JavaScript tools (npm ci)', () =>
    npm(['ci', '--no-audit', '--no-fund', '--loglevel=error']),
  );
}

/** Whether the packages that npm recorded as installed are those of the lock file. */
function installed() {
  const record = inRoot('node_modules', '.package-lock.json');
  if (!existsSync(record)) return false;
  const wanted = packages(inRoot('package-lock.json'));
  const present = packages(record);
  const names = new Set([...Object.keys(wanted), ...Object.keys(present)]);
  names.delete('');
  return [...names].every(
    (name) =>
      name in present
        ? wanted[name]?.version === present[name]?.version && wanted[name]?.integrity === present[name]?.integrity
        : wanted[name]?.optional, // Made for another system.
  );
}

/** @returns {Record<string, { version?: string, integrity?: string, optional?: boolean } | undefined>} */
const packages = (/** @type {string} */ lockFile) => JSON.parse(readFileSync(lockFile, 'utf8')).packages;
