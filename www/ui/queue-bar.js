/** The bar above several images: what can be saved, how all of them go together, and what came of it. */

import { EngineError } from '../bridge.js';
import { outputFormat } from '../choices.js';
import { about, bytes, plural } from '../format.js';
import { setTitle } from '../guard.js';
import { outputName } from '../names.js';
import { queue } from '../queue.js';
import { canPickFolder, createIn, downloadTarget, pickFolder } from '../save.js';
import { byId } from './dom.js';
import { failureNotice } from './notice.js';

/** @import { DiskImage } from '../image.js' */

/** @param {() => DiskImage[]} images what is on the page */
export function mountQueueBar(images) {
  const downloadAll = /** @type {HTMLButtonElement} */ (byId('download-all'));
  const folderAll = /** @type {HTMLButtonElement} */ (byId('folder-all'));
  const cancelAll = /** @type {HTMLButtonElement} */ (byId('cancel-all'));
  const progress = /** @type {HTMLProgressElement} */ (byId('queue-progress'));
  let summary = '';

  const startable = () => images().filter((image) => image.hindrance === null && image.report !== null);
  // Those that were made and are not known to be saved can still go to a folder.
  const forFolder = () => [
    ...startable(),
    ...images().filter(({ state, outcome }) => state === 'done' && outcome?.place === null && !outcome.isChecked),
  ];

  downloadAll.addEventListener('click', async () => {
    for (const image of startable()) {
      void queue.add(image, await downloadTarget(nameFor(image), image.estimate?.outputSize ?? 0));
    }
  });
  folderAll.addEventListener('click', async () => {
    byId('queue-problem').replaceChildren();
    try {
      const chosen = forFolder();
      const folder = await pickFolder(chosen[0]?.handle ?? null);
      if (!folder) return;
      for (const image of chosen) {
        const target = await createIn(folder, nameFor(image), images());
        void queue.add(image, target);
      }
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      byId('queue-problem').replaceChildren(failureNotice(error));
    }
  });
  cancelAll.addEventListener('click', () => queue.cancelAll());

  const update = () => {
    const all = images();
    byId('queue-bar').hidden = all.length < 2;
    const status = queue.status;
    const ready = startable();
    // What a screen reader is told changes with a step, and not with each percent.
    const text = status.isBusy ? busyText(status) : idleText(all, ready, status);
    if (text !== summary) byId('queue-summary').textContent = summary = text;
    progress.hidden = !status.isBusy;
    progress.value = status.share;
    byId('queue-left').textContent =
      status.isBusy && status.secondsLeft !== null ? `${about(status.secondsLeft)} left` : '';
    if (status.isBusy && status.count > 1) setTitle(`${Math.floor(status.share * 100)} % of ${status.count} images`);

    cancelAll.hidden = !status.isBusy || status.count < 2;
    downloadAll.hidden = status.isBusy || ready.length < 2;
    folderAll.hidden = status.isBusy || !canPickFolder || forFolder().length < 2;
    const hint = byId('queue-hint');
    hint.textContent = hintFor(ready, status);
    hint.hidden = hint.textContent === '';
  };
  queue.addEventListener('change', update);
  return { update };
}

/** @param {DiskImage} image */
function nameFor({ name, report, choices, outcome }) {
  if (outcome) return outcome.name;
  if (!report) return outputName(name, 'vhdx', 'vhdx');
  return outputName(name, report.format, outputFormat(report, choices));
}

/** @param {typeof queue.status} status */
const busyText = ({ over, count, savedBytes }) =>
  `${over} of ${count} done${savedBytes > 0 ? `, ${bytes(savedBytes)} saved so far` : ''}`;

/**
 * @param {DiskImage[]} all
 * @param {DiskImage[]} ready
 * @param {typeof queue.status} status
 */
function idleText(all, ready, { count, made, failed, inFolder, savedBytes }) {
  if (count > 1 && made > 0) {
    const where = inFolder === made ? 'saved' : 'made';
    return `${plural(made, 'new image')} ${where}, ${bytes(savedBytes)} smaller in all${failed > 0 ? `; ${failed} stopped` : ''}.`;
  }
  if (ready.length === 0) return plural(all.length, 'image');
  const saves = ready.reduce(
    (sum, { report, estimate }) => sum + Math.max(0, (report?.fileSize ?? 0) - (estimate?.outputSize ?? 0)),
    0,
  );
  return `${plural(all.length, 'image')}, ${ready.length} ready${saves > 0 ? `: ${bytes(saves)} or more can be saved` : ''}`;
}

/**
 * What a browser does with several downloads, and does not tell the page.
 * @param {DiskImage[]} ready
 * @param {typeof queue.status} status
 */
function hintFor(ready, { isBusy, count, made, inFolder }) {
  if (!isBusy && ready.length > 1) {
    return canPickFolder
      ? 'With “Download all” the browser asks whether this page may download several files: until you allow it, only the first arrives. A folder needs no such answer.'
      : 'The browser may ask whether this page may download several files: until you allow it, only the first arrives.';
  }
  if (count > 1 && made > inFolder) {
    return 'Whether every file arrived, only the browser’s downloads list tells. If some did not, the browser has blocked them: allow several (“automatic”) downloads for this page in its site settings, then save those again.';
  }
  return '';
}
