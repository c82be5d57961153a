/**
 * The choices a person has for one image, and which combinations to estimate so that each choice
 * can show what it changes.
 */

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
 * Every choice, by the name of the option that it sets, with its answers, and what each of them sets. What holds where
 * nothing is said is `undefined`.
 * @param {InspectReport} report
 */
export function answersOf(report) {
  /** @param {'vhd' | 'vhdx'} format whose blocks may be of sizes that the other has not */
  const ofFormat = (format) => ({
    format: format === outputFormat(report, {}) ? undefined : format,
    blockSize: undefined,
  });
  return /** @satisfies {Partial<Record<keyof Choices, Record<string, Partial<Choices>>>>} */ ({
    mode: { full: { mode: 'full' }, quick: { mode: 'quick' }, zero: { mode: 'zero' } },
    blockSize: { smallest: { blockSize: undefined }, keep: { blockSize: 'keep' } },
    format: { vhdx: ofFormat('vhdx'), vhd: ofFormat('vhd') },
    dropPageFiles: { no: { dropPageFiles: undefined }, yes: { dropPageFiles: true } },
    ignoreShadowCopies: { no: { ignoreShadowCopies: undefined }, yes: { ignoreShadowCopies: true } },
    flatten: { no: { flatten: undefined }, yes: { flatten: true } },
    // This one has no answer until the person gives it.
    toDynamic: { yes: { toDynamic: true }, no: { toDynamic: false } },
  });
}

/** @typedef {ReturnType<typeof answersOf>} Answers */

/**
 * The name that the estimate of an answer goes by.
 * @template {keyof Answers} C
 * @param {C} choice
 * @param {keyof Answers[C] & string} answer
 */
export const variantOf = (choice, answer) => `${choice}:${answer}`;

/**
 * The present choices, as `now`, and each alternative to them, by {@link variantOf its name}.
 * @param {InspectReport} report
 * @param {Choices} present
 * @param {boolean} hasParents
 */
export function variants(report, present, hasParents) {
  const choices = assumed(report, present);
  const { toDynamic, flatten, ...always } = answersOf(report);
  const asked = {
    ...always,
    ...(hasParents && { flatten }),
    ...(report.diskType === 'fixed' && { toDynamic }),
  };
  /** @type {{ now: Choices } & Record<string, Choices>} */
  const all = { now: choices };
  for (const [choice, answers] of Object.entries(asked)) {
    for (const [answer, sets] of Object.entries(answers)) {
      all[variantOf(/** @type {any} */ (choice), /** @type {never} */ (answer))] = { ...choices, ...sets };
    }
  }
  return all;
}
