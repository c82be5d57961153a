/** What volumes are called: as people know them, never by the number that a program counts with. */

import { el, foreign } from './dom.js';

/** @import { InspectReport } from '../types.js' */

/** @typedef {InspectReport['volumes'][number]} Volume */

/**
 * The kind of a volume: its file system, or what the partition table says.
 * @param {Volume} volume
 */
export const volumeKind = ({ fileSystem, type }) => (fileSystem === 'unknown' ? type : fileSystem);

/**
 * `“Windows” (NTFS)`, `partition 2 (ext4)`, `the whole disk (ext4)`.
 * @param {Volume} volume
 * @param {boolean} [isFirst] whether a sentence begins with it
 * @returns {(Node | string)[]}
 */
export function volumeName(volume, isFirst = false) {
  const name = volume.label || volume.name;
  const kind = el('span', {}, ' (', foreign(volumeKind(volume)), ')');
  if (name) return ['“', foreign(name), '”', kind];
  const { place } = volume;
  return [isFirst ? `${place[0]?.toUpperCase()}${place.slice(1)}` : place, kind];
}
