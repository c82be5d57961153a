/**
 * vhd-compactor for browsers: to be used in a dedicated worker, since `FileReaderSync` lives only there.
 */

import * as engine from '../pkg/vhd_compactor.js';
import { OpenImage, verifyImages } from './core.js';
import { FileSource } from './sources/file.js';

/** @import { ImageSource, OptionsGiven, Sink } from './types.js' */

export { CompactorError } from './errors.js';
export { Job } from './job.js';
export { DownloadSink } from './sinks/download.js';
export { MemorySink } from './sinks/memory.js';
export { PickerSink } from './sinks/picker.js';
export { BytesSource } from './sources/bytes.js';
export { BlobSource } from './sources/file.js';
export { FileSource, OpenImage };

/** @type {Promise<typeof engine> | null} */
let loading = null;

/** Loads the engine; the other functions do so themselves. */
export function load() {
  loading ??= engine.default().then(() => engine);
  return loading;
}

/** The version of the engine. */
export async function version() {
  return (await load()).version();
}

/** What is to be known of each format without opening a file: the engine's own table. */
export async function formats() {
  return (await load()).formats();
}

/** @param {File | ImageSource} source @returns {ImageSource} */
const asSource = (source) => (source instanceof File ? new FileSource(source) : source);

/** @param {OptionsGiven<File>} options */
const withSources = (options) => ({ ...options, parents: (options.parents ?? []).map(asSource) });

/**
 * @param {File | ImageSource} image
 * @param {OptionsGiven<File>} [options]
 */
export async function open(image, options = {}) {
  return new OpenImage(await load(), asSource(image), withSources(options));
}

/**
 * @param {File | ImageSource} image
 * @param {OptionsGiven<File>} [options]
 */
export async function inspect(image, options = {}) {
  const opened = await open(image, options);
  try {
    await opened.check().result;
    return opened.report;
  } finally {
    opened.close();
  }
}

/**
 * @param {File | ImageSource} image
 * @param {Sink} sink
 * @param {OptionsGiven<File>} [options]
 */
export async function compact(image, sink, options = {}) {
  const opened = await open(image, options);
  const { parents: _, ...chosen } = options;
  const job = opened.compact(sink, chosen);
  const close = () => opened.close();
  job.result.then(close, close);
  return job;
}

/**
 * @param {File | ImageSource} original
 * @param {File | ImageSource} compacted
 * @param {OptionsGiven<File>} [options]
 */
export async function verify(original, compacted, options = {}) {
  return verifyImages(await load(), asSource(original), asSource(compacted), withSources(options));
}
