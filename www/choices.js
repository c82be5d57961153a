/**
 * The choices a person has for one image, and which combinations to estimate so that each choice
 * can show what it changes.
 */

import { FORMAT_NAMES } from '../lib/formats.js';

/** @import { Choices, InspectReport } from './types.js' */

/**
 * The format of the new image.
 * @param {InspectReport} report
 * @param {Choices} choices
 */
export const outputFormat = (report, choices) => choices.format ?? (report.format === 'vhd' ? 'vhd' : 'vhdx');

/** @returns {Choices} */
export const defaultChoices = () => ({ mode: 'full' });

/**
 * A fixed image becomes smaller only as a dynamic one, and that is the person's to say.
 * @param {InspectReport} report
 * @param {Choices} choices
 */
export const mustAskDynamic = (report, choices) => report.diskType === 'fixed' && choices.toDynamic === undefined;

/**
 * What is estimated until that question has an answer: the answer that saves something.
 * @param {InspectReport} report
 * @param {Choices} choices
 * @returns {Choices}
 */
export const assumed = (report, choices) =>
  mustAskDynamic(report, choices) ? { ...choices, toDynamic: true } : choices;

/**
 * Each alternative to the present choices, by name.
 * @param {InspectReport} report
 * @param {Choices} present
 * @param {boolean} hasParents
 */
export function variants(report, present, hasParents) {
  const choices = assumed(report, present);
  /** @type {{ now: Choices } & Record<string, Choices>} */
  const all = {
    now: choices,
    'mode:full': { ...choices, mode: 'full' },
    'mode:quick': { ...choices, mode: 'quick' },
    'mode:zero': { ...choices, mode: 'zero' },
    'dropPageFiles:no': { ...choices, dropPageFiles: false },
    'dropPageFiles:yes': { ...choices, dropPageFiles: true },
    'ignoreShadowCopies:no': { ...choices, ignoreShadowCopies: false },
    'ignoreShadowCopies:yes': { ...choices, ignoreShadowCopies: true },
    'block:keep': { ...choices, blockSize: 'keep' },
    'block:smallest': { ...choices, blockSize: undefined },
  };
  for (const format of FORMAT_NAMES) all[`format:${format}`] = { ...choices, format, blockSize: undefined };
  if (report.diskType === 'fixed') {
    all['toDynamic:yes'] = { ...choices, toDynamic: true };
  }
  if (hasParents) {
    all['flatten:no'] = { ...choices, flatten: false };
    all['flatten:yes'] = { ...choices, flatten: true };
  }
  return all;
}
