/**
 * How files come in: dropped, chosen, opened from the system's file manager, or the sample. Each
 * keeps its handle where the browser gives one, so that it is known again.
 */

/** @import { Picked } from './types.js' */

/**
 * Must be called while the drop event is being handled: its items are gone afterwards.
 * @param {DataTransfer} transfer
 * @returns {Promise<Picked[]>}
 */
export async function fromDrop(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === 'file');
  const picked = await Promise.all(items.map(fromItem));
  return picked.filter((one) => one !== null);
}

/** @param {FileList | null} list */
export const fromInput = (list) => [...(list ?? [])].map((file) => ({ file, handle: null }));

/** @param {readonly FileSystemHandle[]} handles */
export async function fromHandles(handles) {
  const picked = await Promise.all(handles.map(fromHandle));
  return picked.filter((one) => one !== null);
}

/**
 * The sample image, unpacked here; it comes with the page and needs no network.
 * @returns {Promise<Picked>}
 */
export async function sample() {
  const answer = await fetch('sample/sample.vhdx.gz');
  if (!answer.ok || !answer.body) throw new Error(`the sample could not be loaded (${answer.status})`);
  const packed = await answer.blob();
  const start = new Uint8Array(await packed.slice(0, 2).arrayBuffer());
  // A server that declares the packing has the browser unpack it on the way.
  const isPacked = start[0] === 0x1f && start[1] === 0x8b;
  const bytes = isPacked
    ? await new Response(packed.stream().pipeThrough(new DecompressionStream('gzip'))).blob()
    : packed;
  return { file: new File([bytes], 'sample.vhdx'), handle: null };
}

/**
 * Whether two picked files are one file: by handle where both have one, else by every trait.
 * @param {Picked} one
 * @param {Picked} other
 */
export async function isSameFile(one, other) {
  if (one.handle && other.handle) return one.handle.isSameEntry(other.handle);
  return (
    one.file.name === other.file.name &&
    one.file.size === other.file.size &&
    one.file.lastModified === other.file.lastModified
  );
}

/**
 * @param {DataTransferItem} item
 * @returns {Promise<Picked | null>}
 */
async function fromItem(item) {
  const file = item.getAsFile();
  // Some folders (AppData, where WSL keeps its disks, is one) give a file and refuse a handle.
  const handle = await item.getAsFileSystemHandle?.().catch(() => null);
  if (handle?.kind === 'directory') return null;
  if (handle) return (await fromHandle(handle)) ?? (file && { file, handle: null });
  return file && { file, handle: null };
}

/**
 * @param {FileSystemHandle} handle
 * @returns {Promise<Picked | null>}
 */
async function fromHandle(handle) {
  if (handle.kind !== 'file') return null;
  try {
    const fileHandle = /** @type {FileSystemFileHandle} */ (handle);
    return { file: await fileHandle.getFile(), handle: fileHandle };
  } catch {
    return null;
  }
}
