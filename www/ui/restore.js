/** After a reload: the cards come back at once where the browser allows it, else with one click. */

import { plural } from '../format.js';
import { forget, readable, remembered } from '../remembered.js';
import { button, byId, el, foreign } from './dom.js';

/** @param {(handles: FileSystemFileHandle[]) => Promise<void>} add takes files in as a drop does */
export async function restoreCards(add) {
  const handles = await remembered();
  if (handles.length === 0) return;
  const allowed = await readable(handles, false);
  if (allowed.length > 0) await add(allowed);
  const asked = handles.filter((handle) => !allowed.includes(handle));
  if (asked.length === 0) return;

  const place = byId('restore');
  const close = () => place.replaceChildren();
  const names = asked.slice(0, 3).flatMap(({ name }, index) => [index > 0 ? ', ' : ' ', foreign(name)]);
  place.replaceChildren(
    el(
      'p',
      {},
      `Before the reload, ${plural(asked.length, 'image')} stood here:`,
      ...names,
      asked.length > 3 ? ', …' : '',
    ),
    button('Open again', async () => {
      const again = await readable(asked, true);
      close();
      if (again.length > 0) await add(again);
    }),
    button(
      'Forget',
      () => {
        close();
        for (const { name } of asked) void forget(name);
      },
      'quiet',
    ),
  );
}
