/**
 * A folder of the browser's own storage in place of the one that a person picks: without a window no folder dialog ever
 * answers, and what is written there is as real.
 */

/** @import { Page } from 'playwright-core' */

/** A script of the page: the dialog hands out that folder. */
export const ownFolder = () => {
  window.showDirectoryPicker = async () =>
    (await navigator.storage.getDirectory()).getDirectoryHandle('new-images', { create: true });
};

/** Name and size of what lies in it. @param {Page} page @returns {Promise<Record<string, number>>} */
export const listing = (page) =>
  page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('new-images', { create: true });
    /** @type {Record<string, number>} */
    const files = {};
    for await (const [name, handle] of folder.entries()) {
      files[name] = (await /** @type {FileSystemFileHandle} */ (handle).getFile()).size;
    }
    return files;
  });

/** The bytes of a file in it, onto this machine's disk. @param {Page} page @param {string} name @param {string} to */
export async function fetchOut(page, name, to) {
  const arriving = page.waitForEvent('download');
  await page.evaluate(async (wanted) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('new-images');
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await (await folder.getFileHandle(wanted)).getFile());
    link.download = wanted;
    link.click();
  }, name);
  await (await arriving).saveAs(to);
  return to;
}
