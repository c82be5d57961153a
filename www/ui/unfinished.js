/** At the next visit: which runs were cut short, what that means for the files, and what can be done about it. */

import { displayText } from '../format.js';
import { forget, readable } from '../remembered.js';
import { forgetRun, removeEmpty, unfinishedRuns, whatIsLeft } from '../unfinished.js';
import { UNFINISHED } from '../words.js';
import { button, byId } from './dom.js';
import { notice } from './notice.js';

/** @import { Left, Unfinished } from '../unfinished.js' */

/** @param {(handles: FileSystemFileHandle[]) => Promise<void>} add takes files in as a drop does */
export async function tellUnfinished(add) {
  for (const [id, run] of await unfinishedRuns()) {
    const place = document.createElement('div');
    byId('unfinished').append(place);
    const close = async () => {
      // First forgotten, then gone: a reload right after it must not tell of it again.
      await forgetRun(id);
      place.remove();
    };
    const show = (/** @type {Left} */ left) => place.replaceChildren(describe(run, left, { add, show, close }));
    show(await whatIsLeft(run, false));
  }
}

/**
 * @param {Unfinished} run
 * @param {Left} left
 * @param {{ add: (handles: FileSystemFileHandle[]) => Promise<void>, show: (left: Left) => void, close: () => Promise<void> }} act
 */
function describe(run, left, { add, show, close }) {
  const { handle, folder } = run;
  const actions = [];
  if (left === 'unknown') actions.push(button('Look there', async () => show(await whatIsLeft(run, true))));
  if (left === 'empty') actions.push(button('Remove the empty file', async () => show(await removeEmpty(run))));
  if (left === 'there') {
    actions.push(
      button('Compare two images', () => {
        location.hash = '#compare';
      }),
    );
  }
  if (handle) {
    actions.push(
      button('Open the image again', async () => {
        const [allowed] = await readable([handle], true);
        if (!allowed) return;
        await close();
        void forget(run.source);
        await add([allowed]);
      }),
    );
  }
  actions.push(button('Close this note', close, 'quiet'));
  const words = UNFINISHED[folder ? left : 'download'];
  const name = displayText(run.name);
  return notice('plain', words(displayText(run.source), name, displayText(folder?.name ?? '')), '', actions);
}
