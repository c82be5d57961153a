/**
 * What the page says. Every failure has three sentences: what happened, what it means for the
 * person's data, and what to do next. What the engine adds is shown beneath them as a detail.
 */

/** @import { Failure } from './types.js' */
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
    next: 'Try another place, or save it with Download instead.',
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
    next: 'Choose a file that ends in .vhd, .vhdx or .avhdx. For VMDK, VDI or QCOW2 disks, “qemu-img convert -O vhdx” makes a VHDX first.',
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

/** @type {Record<string, string>} */
export const PHASES = {
  queued: 'Getting ready',
  analyse: 'Reading the disk’s tables',
  scan: 'Looking through the disk for zeros',
  write: 'Writing the new image',
  finish: 'Putting the new image in its place',
  verify: 'Comparing the new image with yours',
  done: 'Done',
};

/** The steps that a person sees, in order. @type {{ phase: string, label: string }[]} */
export const STEPS = [
  { phase: 'scan', label: 'Look' },
  { phase: 'write', label: 'Write' },
  { phase: 'verify', label: 'Compare' },
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
  done: 'Done',
  nothing: 'Nothing to gain',
  failed: 'Stopped',
};

/**
 * The classes of the block map, in the order of the legend.
 * @type {{ id: number, key: string, label: string, means: string }[]}
 */
export const BLOCK_CLASSES = [
  { id: 1, key: 'used', label: 'In use', means: 'holds data and stays, unless it turns out to be zero' },
  { id: 4, key: 'partly', label: 'Partly free', means: 'holds data and free space; a block stays whole' },
  {
    id: 5,
    key: 'declined',
    label: 'Not understood',
    means: 'its free space cannot be proved, so it stays unless it is zero',
  },
  { id: 2, key: 'free', label: 'Free', means: 'proved free; will be left out' },
  { id: 3, key: 'zero', label: 'Zero', means: 'found to hold only zeros; left out' },
  { id: 6, key: 'kept', label: 'Kept', means: 'looked at, and goes into the new image' },
  { id: 7, key: 'dropped', label: 'Left out', means: 'proved free; not in the new image' },
  { id: 0, key: 'absent', label: 'Never stored', means: 'takes no room in the file' },
];
