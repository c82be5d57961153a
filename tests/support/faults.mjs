/**
 * A disk that fails where it is told to: the calls of `node:fs` that touch one folder, numbered, each of which can be
 * made to do something else.
 */
import fs from 'node:fs';
import { dirname, sep } from 'node:path';
import { mock } from 'node:test';

/**
 * @typedef {object} Call
 * @property {number} number from 0
 * @property {string} name of the function, without its `Sync`
 * @property {string} path of the file
 * @property {boolean} isWritten whether the file is open for writing
 * @property {any[]} args
 * @property {(...args: any[]) => any} real
 */

/** By their first argument: a path, or an open file. */
const BY_PATH = ['access', 'lstat', 'link', 'open', 'readdir', 'realpath', 'rename', 'rm', 'stat', 'statfs', 'unlink'];
const BY_FD = ['close', 'fchmod', 'fchown', 'fstat', 'fsync', 'ftruncate', 'read', 'write'];
/** Those that are called with a callback, too; they are done at once, and tell of it later. */
const LATER = ['fdatasync', 'read', 'write'];

/**
 * From now on `act` does what calls in `folder` do, until the returned function is called.
 * @param {string} folder @param {(call: Call) => any} act
 */
export function intercept(folder, act) {
  /** @type {Map<number, { path: string, isWritten: boolean }>} */
  const opened = new Map();
  let number = 0;
  const inside = (/** @type {string} */ path) =>
    path === folder || path.startsWith(folder + sep) || folder === dirname(path);
  const perform = (/** @type {string} */ name, /** @type {any[]} */ args, /** @type {any} */ real) => {
    const known = typeof args[0] === 'number' ? opened.get(args[0]) : { path: String(args[0]), isWritten: false };
    if (!known || !inside(known.path)) return real(...args);
    const call = { number, name, ...known, args, real };
    number += 1;
    const result = act(call);
    if (name === 'open') opened.set(result, { path: known.path, isWritten: `${args[1]}`.startsWith('w') });
    if (name === 'close') opened.delete(args[0]);
    return result;
  };
  const functions = /** @type {any} */ (fs);
  const real = Object.fromEntries([...BY_PATH, ...BY_FD, ...LATER].map((name) => [name, functions[`${name}Sync`]]));
  const mocks = [
    ...[...BY_PATH, ...BY_FD].map((name) =>
      mock.method(functions, `${name}Sync`, (/** @type {any[]} */ ...args) => perform(name, args, real[name])),
    ),
    ...LATER.map((name) =>
      mock.method(functions, name, (/** @type {any[]} */ ...all) => {
        const [args, callback] = [all.slice(0, -1), all.at(-1)];
        /** @type {[any, any?]} */
        let answer;
        try {
          answer = [null, perform(name, args, real[name])];
        } catch (error) {
          answer = [error];
        }
        setImmediate(() => callback(...answer));
      }),
    ),
  ];
  return () => mocks.forEach((method) => method.mock.restore());
}

/** As the operating system says it. */
export const systemError = (/** @type {string} */ code) =>
  Object.assign(new Error(`${code}: as if the disk had said so`), { code });
