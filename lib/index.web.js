/**
 * vhd-compactor for browsers: to be used in a dedicated worker, since `FileReaderSync` lives only there.
 *
 * @typedef {import('./types.js').ImageSource} ImageSource
 * @typedef {import('./types.js').Sink} Sink
 * @typedef {import('./types.js').Options} Options
 */

import * as engine from '../pkg/vhd_compactor.js';
import { OpenImage, verifyImages } from './core.js';
import { FileSource } from './sources/file.js';

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

/** @param {File | ImageSource} source @returns {ImageSource} */
const asSource = (source) => (source instanceof File ? new FileSource(source) : source);

/** @param {Options & { parents?: (File | ImageSource)[] }} options */
const withSources = (options) => ({ ...options, parents: (options.parents ?? []).map(asSource) });

/**
 * @param {File | ImageSource} image
 * @param {Options & { parents?: (File | ImageSource)[] }} [options]
 */
export async function open(image, options = {}) {
  return new OpenImage(await load(), asSource(image), withSources(options));
}

/**
 * @param {File | ImageSource} image
 * @param {Options & { parents?: (File | ImageSource)[] }} [options]
 */
export async function inspect(image, options = {}) {
  const opened = await open(image, options);
  try {
    return opened.report;
  } finally {
    opened.close();
  }
}

/**
 * @param {File | ImageSource} image
 * @param {Sink} sink
 * @param {Options & { parents?: (File | ImageSource)[] }} [options]
 */
export async function compact(image, sink, options = {}) {
  const opened = await open(image, options);
  const job = opened.compact(sink, options);
  const close = () => opened.close();
  job.result.then(close, close);
  return job;
}

/**
 * @param {File | ImageSource} original
 * @param {File | ImageSource} compacted
 * @param {Options & { parents?: (File | ImageSource)[] }} [options]
 */
export async function verify(original, compacted, options = {}) {
  return verifyImages(await load(), asSource(original), asSource(compacted), withSources(options));
}
