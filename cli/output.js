/** What OUTPUT must not be, found out before anything is read. */
import { lstatSync, statSync } from 'node:fs';
import { CompactorError } from '../lib/index.node.js';

/**
 * @param {string} output
 * @param {string[]} inputs the image and its parents
 * @param {boolean} force replace an existing file
 */
export function refuseOutput(output, inputs, force) {
  const [image, ...parents] = inputs;
  if (image !== undefined && sameFile(output, image)) refuse('OUTPUT is the image itself, which is never written');
  if (parents.some((parent) => sameFile(output, parent))) refuse('OUTPUT is a parent of the image');
  // Not statSync: a link to nowhere is there, too.
  const there = lstatSync(output, { throwIfNoEntry: false });
  if (there && statSync(output, { throwIfNoEntry: false })?.isDirectory()) refuse(`${output} is a folder`);
  if (there && !force) refuse(`${output} exists; --force replaces it`);
}

/** Whether two paths lead to one file, through whatever links. */
function sameFile(/** @type {string} */ a, /** @type {string} */ b) {
  const options = /** @type {const} */ ({ bigint: true, throwIfNoEntry: false });
  const [first, second] = [statSync(a, options), statSync(b, options)];
  return first !== undefined && second !== undefined && first.dev === second.dev && first.ino === second.ino;
}

/** @returns {never} */
function refuse(/** @type {string} */ message) {
  throw new CompactorError('invalid-argument', message);
}
