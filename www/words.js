/**
 * What the page says. Every failure has three sentences: what happened, what it means for the
 * person's data, and what to do next. What the engine adds is shown beneath them as a detail.
 */

/** @import { Failure } from './types.js' */
/** @import { Cause } from './diagnose.js' */
/** @typedef {{ title: string, meaning: string, next: string }} Words */

const SAFE = 'Your file has only been read; it is as it was, and nothing new was left behind.';

/** @type {Record<Failure['code'], Words>} */
export const ERRORS = {
  'read-failed': {
    title: 'The file could not be read',
    meaning: SAFE,
    next: 'If it lies on a removable or network drive, check that the drive is still there. Close programs that use the disk, then try again. If it happens at the same place every time, the drive itself may be failing: copy the file elsewhere first.',
  },
  'source-changed': {
    title: 'The file changed while it was being read',
    meaning:
      'Something is still writing to this disk, so a copy made now could mix old and new. No new image was kept, and your file has only been read.',
    next: 'Shut the virtual machine down (for WSL and Docker: quit Docker, then run “wsl --shutdown”), then drop the file again.',
  },
  'write-failed': {
    title: 'The new image could not be written',
    meaning: SAFE,
    next: 'Try another place, or another way of saving.',
  },
  differs: {
    title: 'The new image did not come out right',
    meaning: SAFE,
    next: 'Try again, and save to another drive. If it happens again, please report it.',
  },
  'out-of-space': {
    title: 'There is not enough room for the new image',
    meaning: SAFE,
    next: 'Free some space or choose another drive. The size that is needed stands in the estimate.',
  },
  'permission-denied': {
    title: 'The browser was not allowed to do that',
    meaning: SAFE,
    next: 'If the browser asked for permission, allow it and try again. Some folders (system folders, a whole drive) are closed to web pages: choose a folder of your own, or copy the file out first.',
  },
  'in-use': {
    title: 'Another program is using the file',
    meaning: SAFE,
    next: 'Shut the virtual machine down or detach the disk (for WSL and Docker: quit Docker, then run “wsl --shutdown”), then drop the file again.',
  },
  'not-recognised': {
    title: 'This is not a VHD or VHDX image',
    meaning: SAFE,
    next: 'What makes a VHD or VHDX is missing at its start and at its end, whatever its name says. Choose the disk image itself; a raw disk becomes one with “qemu-img convert -f raw -O vhdx”.',
  },
  corrupt: {
    title: 'The image is damaged',
    meaning:
      'Its own tables contradict each other, so nothing can be moved without guessing, and guessing could lose data. Your file has only been read; it is as it was.',
    next: 'Make a copy of the file before anything else. Then let a program that repairs images look at the copy (Hyper-V’s “Test-VHD”, “qemu-img check”), or go back to a backup.',
  },
  unsupported: {
    title: 'The image uses something that is not handled here',
    meaning: SAFE,
    next: 'The detail below names it. A virtual machine in a saved state must be started and shut down first; other kinds have to be converted by the program that made them.',
  },
  'wrong-image-type': {
    title: 'That does not apply to this kind of image',
    meaning: SAFE,
    next: 'A fixed-size image can only become smaller as a dynamic one: say so in its question. The detail below says more.',
  },
  'needs-parent': {
    title: 'This image needs its parent',
    meaning:
      'A differencing disk (a checkpoint or snapshot) holds only what changed since its parent; without it, what is free cannot be told. Your file has only been read.',
    next: 'Drop the parent as well. If there is a chain of them, drop them all together.',
  },
  'parent-changed': {
    title: 'This parent has another time than its child noted',
    meaning:
      'It has the right identifier. Copying or downloading a file changes its time and nothing else; but if something was written to it since (a machine was started from it, say), what both read together is a mixture, and so would be the new image. Your files have only been read.',
    next: 'Give the original file, as it lay beside its child. If you know that this one was only copied, it can be used as it is.',
  },
  'limit-exceeded': {
    title: 'A value in the image is beyond every sensible limit',
    meaning:
      'Such a number is most often damage, and believing it could exhaust this computer’s memory. Your file has only been read; it is as it was.',
    next: 'Open the disk with the program that made it, and have it checked there. If it works there, please report it with the detail below.',
  },
  cancelled: {
    title: 'Cancelled',
    meaning: SAFE,
    next: 'You can start again at any time.',
  },
  'invalid-argument': {
    title: 'These choices do not go together',
    meaning: 'Nothing was started. Your file is as it was.',
    next: 'Change the choice that the detail below names, or put the options back to how they were.',
  },
  'out-of-memory': {
    title: 'The browser ran out of memory',
    meaning: SAFE,
    next: 'Close other tabs and programs and try again.',
  },
  internal: {
    title: 'Something went wrong in this page',
    meaning: 'That is a fault of this page, not of your disk. Your file has only been read; it is as it was.',
    next: 'Reload the page and try again. If it happens again, please report it with the detail below.',
  },
  'page-incomplete': {
    title: 'A part of this page could not be loaded',
    meaning: 'Nothing is wrong with your disk; your file is as it was.',
    next: 'A new version of this page may just have been put up, or the network is gone. Reload the page; if that does not help, do so again in a few minutes.',
  },
  'same-file': {
    title: 'That is the image itself',
    meaning:
      'The new image must not be written over the old one: until it is complete and checked, yours is the only copy. Nothing was written.',
    next: 'Choose another folder.',
  },
  'reads-differently': {
    title: 'The new image did not pass the comparison',
    meaning:
      'Read back, it differs from yours at the place below, so it was thrown away. Your file has only been read; it is as it was.',
    next: 'Try again, to another drive if there is one: a failing drive can cause this. If it happens again, please report it with the detail below.',
  },
  'not-the-same': {
    title: 'They do not hold the same',
    meaning:
      'The two disks read differently at the place below, which nothing proves to be free. Neither file was changed.',
    next: 'Keep the original, and do not use the other one in its place. If page files were emptied or shadow copies given up, say so above. If the original was used since it was compacted, they differ rightly: compact it again.',
  },
  'blocked-folder': {
    title: 'The browser does not let pages write there',
    meaning: 'Nothing was written. Your file is as it was.',
    next: 'Choose a folder of your own (a new one inside Documents will do), or use Download.',
  },
};

/**
 * Where the file itself tells more than the engine's code: the known causes, in the same three sentences.
 * @type {Record<Cause['cause'], (what: string) => Words>}
 */
export const CAUSES = {
  gone: () => ({
    title: 'The file is no longer there',
    meaning:
      'It was moved, renamed or deleted, or its drive was removed, since you gave it to this page. Nothing was written.',
    next: 'Put it back, or connect the drive again; then drop the file once more.',
  }),
  empty: () => ({
    title: 'The file is empty',
    meaning: 'It has no bytes at all, so there is no disk in it. Nothing was written.',
    next: 'Is a copy or a download still under way, or did one fail? Choose the complete file.',
  }),
  text: () => ({
    title: 'This is a text file, not a disk image',
    meaning: SAFE,
    next: 'Its name may end as an image’s does, but it holds text: perhaps the error page of a download, or a list. Choose the disk image itself.',
  }),
  packed: (what) => ({
    title: `This is a packed file (${what})`,
    meaning: SAFE,
    next: 'Unpack it first, then drop the disk image that comes out.',
  }),
  'other-image': (what) => ({
    title: `This is a disk image of another kind (${what})`,
    meaning: SAFE,
    next: 'Only VHD and VHDX are handled here. “qemu-img convert -O vhdx” makes a VHDX of it first.',
  }),
  unfinished: () => ({
    title: 'The file ends too early',
    meaning:
      'Its own tables speak of more than is there, so a part of the disk is missing. Your file has only been read; it is as it was.',
    next: 'Is this an unfinished copy or download? Compare its size with the original’s, and copy it again. If there is no other copy, make one of this file before anything else is tried.',
  }),
  'no-footer': () => ({
    title: 'The end of this VHD is missing',
    meaning:
      'Every VHD ends with a footer that says what it is; here, other bytes stand there. Your file has only been read; it is as it was.',
    next: 'Is this an unfinished copy or download? Then copy it again. If it is a raw disk that was only named .vhd, “qemu-img convert -f raw -O vhdx” makes an image of it.',
  }),
};

/** What is said where the page cannot work at all in this browser. @type {Record<'off' | 'old', Words>} */
export const NO_ENGINE = {
  off: {
    title: 'WebAssembly is switched off in this browser',
    meaning:
      'The part of this page that reads disk images needs it, so nothing can be opened here. Your files are as they were.',
    next: 'Strict security settings switch it off (“Enhanced security” in Edge, “Lockdown Mode” on Apple’s systems): allow it for this page, or use another browser.',
  },
  old: {
    title: 'This browser is too old for this page',
    meaning: 'It lacks a part of WebAssembly that is needed to read disk images. Your files are as they were.',
    next: 'Use a current Chrome, Edge, Firefox or Safari.',
  },
};

const CUT_SHORT = 'The last run was cut short';

/**
 * What is said of a run whose tab was closed, by what is left of it in its folder.
 * @type {Record<'download' | import('./unfinished.js').Left, (source: string, name: string, folder: string) => Pick<Words, 'title' | 'meaning'> & Partial<Words>>}
 */
export const UNFINISHED = {
  download: (source) => ({
    title: CUT_SHORT,
    meaning: `This page was closed before the new image of ${source} was made. Nothing was saved, and your file is as it was.`,
  }),
  gone: (source, _name, folder) => ({
    title: CUT_SHORT,
    meaning: `This page was closed before ${source} was done. Your file is as it was, and nothing is left of it in the folder ${folder}.`,
  }),
  empty: (source, name, folder) => ({
    title: CUT_SHORT,
    meaning: `This page was closed before the new image of ${source} was written. Your file is as it was. All that is left is an empty file, ${name}, in the folder ${folder}.`,
  }),
  there: (source, name, folder) => ({
    title: 'A new image was not compared',
    meaning: `This page was closed before ${name} in the folder ${folder} was compared with ${source}. Your file is as it was.`,
    next: 'Compare the two before you use it, or delete it and start again.',
  }),
  unknown: (source, name, folder) => ({
    title: CUT_SHORT,
    meaning: `This page was closed before ${source} was done. Your file is as it was. In the folder ${folder}, ${name} is an empty file, or an image that was not compared yet.`,
    next: 'This page may not look into the folder without your leave.',
  }),
};

/** @type {Record<string, string>} */
export const PHASES = {
  queued: 'Getting ready',
  check: 'Confirming what is free',
  scan: 'Looking through the disk for zeros',
  write: 'Writing the new image',
  finish: 'Putting the new image in its place',
  verify: 'Proving that the new image holds the same',
  done: 'Done',
};

/** The steps that a person sees, in order. @type {{ phase: string, label: string }[]} */
export const STEPS = [
  { phase: 'check', label: 'Check' },
  { phase: 'scan', label: 'Look' },
  { phase: 'write', label: 'Write' },
  { phase: 'verify', label: 'Prove' },
];

/** @type {Record<string, string>} */
export const DISK_TYPES = {
  fixed: 'fixed size',
  dynamic: 'dynamic (grows as it is used)',
  differencing: 'differencing (holds what changed since its parent)',
};

/** @type {Record<string, string>} */
export const STATES = {
  reading: 'Reading',
  'needs-parent': 'Needs its parent',
  ready: 'Ready',
  waiting: 'Waiting',
  running: 'Working',
  done: 'Made',
  nothing: 'Nothing to gain',
  failed: 'Stopped',
};

/**
 * What a person must know before anything else, by the code of the warning.
 * @type {Record<string, string>}
 */
export const ALARMS = {
  'ext-under-partition-table': 'A partition table was written over the file system of this disk',
};

/**
 * The classes of the block map, in the order of the legend.
 * @type {{ id: number, key: string, label: string, means: string }[]}
 */
export const BLOCK_CLASSES = [
  { id: 1, key: 'used', label: 'In use', means: 'holds data and stays, unless it turns out to be zero' },
  { id: 4, key: 'held', label: 'Free, but stays', means: 'free space that shares a block with data' },
  {
    id: 5,
    key: 'declined',
    label: 'Of unknown use',
    means: 'no file system tells whether it is free, so it stays unless it is zero',
  },
  { id: 2, key: 'free', label: 'Free', means: 'proved free; will be left out' },
  { id: 3, key: 'zero', label: 'Zero', means: 'found to hold only zeros; left out' },
  { id: 6, key: 'dropped', label: 'Left out', means: 'proved free; not in the new image' },
  { id: 0, key: 'absent', label: 'Never stored', means: 'takes no room in the file' },
];
