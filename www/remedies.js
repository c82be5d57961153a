/**
 * What to do about a volume whose free space cannot be proved, by the engine's reason and the family of the
 * file system: one sentence, and the commands as something to copy.
 */

/** @import { EstimateReport, InspectReport } from './types.js' */

/** @typedef {InspectReport['volumes'][number]} Volume */
/** @typedef {{ title: string, next: string, commands: string[] }} Remedy `title` goes on after the volume's name */

/** A volume that is less than this share of the disk is told of in its place, and not above all else. */
const WORTH_A_HEADLINE = 0.05;

const FAMILIES = /** @type {const} */ ({ windows: /^(NTFS|ReFS|BitLocker)/i, fat: /^(FAT|exFAT)/i, ext: /^ext[234]/i });

/** @type {Record<string, string>} */
const TITLES = {
  dirty: 'was not shut down cleanly',
  'journal-pending': 'was not shut down cleanly',
  hibernated: 'is hibernated',
  'error-state': 'is marked as damaged',
  encrypted: 'is encrypted',
  'not-supported': 'is of a kind whose free space is not known here',
  'unknown-feature': 'uses a feature that is not known here',
  'shadow-copies': 'holds shadow copies that cannot be told apart',
  ambiguous: 'is read differently by different programs',
  inconsistent: 'contradicts itself',
  unreadable: 'cannot be read',
  unrecognised: 'holds no known file system',
};

/** @type {Record<string, Partial<Record<keyof typeof FAMILIES, { next: string, commands: string[] }>>>} */
const REMEDIES = {
  dirty: {
    windows: {
      next: 'Start the machine and shut it down fully, or attach the disk to a Windows computer and have it checked there. Then drop it again.',
      commands: ['shutdown /s /f /t 0', 'chkdsk D: /f'],
    },
    fat: { next: 'Have it checked, then drop it again.', commands: ['chkdsk D: /f', 'fsck.fat -a /dev/sdX1'] },
    ext: {
      next: 'For WSL and Docker, end WSL; elsewhere, shut the system down, or check the file system. Then drop it again.',
      commands: ['wsl --shutdown', 'e2fsck -f /dev/sdX1'],
    },
  },
  hibernated: {
    windows: {
      next: 'Start the machine, switch hibernation and Fast Startup off, and shut it down. Then drop it again.',
      commands: ['powercfg /hibernate off', 'shutdown /s /f /t 0'],
    },
  },
  encrypted: {
    windows: {
      next: 'Decrypt it inside the machine, shut the machine down, and drop it again.',
      commands: ['manage-bde -off C:'],
    },
  },
};
REMEDIES['journal-pending'] = { ext: REMEDIES.dirty?.ext };
REMEDIES['error-state'] = {
  windows: { next: 'Have it checked inside the machine, then drop it again.', commands: ['chkdsk C: /r'] },
  fat: REMEDIES.dirty?.fat,
  ext: { next: 'Check it, then drop it again.', commands: ['e2fsck -f /dev/sdX1'] },
};
REMEDIES.inconsistent = REMEDIES['error-state'];

/**
 * The volumes that stand in the way of a smaller image, those that hold the most first. Before an estimate says how
 * much of one is stored, its length stands for that.
 * @param {InspectReport} report
 * @param {EstimateReport | null} estimate
 */
export function obstacles({ volumes, virtualSize }, estimate) {
  const least = (estimate?.outputSize ?? virtualSize) * WORTH_A_HEADLINE;
  const stored = (/** @type {number} */ position) =>
    estimate?.parts.reduce((sum, { volume, bytes }) => (volume === position ? sum + bytes : sum), 0);
  return volumes
    .map((volume, position) => ({ volume, held: stored(position) ?? volume.length }))
    .filter(({ volume, held }) => volume.declined && held >= least)
    .sort((one, other) => other.held - one.held)
    .map(({ volume }) => volume);
}

/**
 * @param {Volume} volume one that was declined
 * @returns {Remedy}
 */
export function remedyOf({ declined, fileSystem }) {
  const reason = declined?.reason ?? '';
  const [family] = Object.entries(FAMILIES).find(([, names]) => names.test(fileSystem)) ?? [];
  const known = REMEDIES[reason]?.[/** @type {keyof typeof FAMILIES} */ (family)];
  return { title: TITLES[reason] ?? 'cannot be judged', next: known?.next ?? '', commands: known?.commands ?? [] };
}
