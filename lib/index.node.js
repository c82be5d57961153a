/**
 * vhd-compactor for Node: the same engine as in the page, over `fs`.
 */

import fs from 'node:fs';

import * as engine from '../pkg/vhd_compactor.js';
import { OpenImage, verifyImages } from './core.js';
import { PathSink } from './sinks/path.js';
import { PathSource } from './sources/path.js';

/** @import { ImageSource, OptionsGiven, Sink } from './types.js' */

export { CompactorError } from './errors.js';
export { Job } from './job.js';
export { MemorySink } from './sinks/memory.js';
export { BytesSource } from './sources/bytes.js';
export { OpenImage, PathSink, PathSource };

let loaded = false;

function load() {
  if (!loaded) {
    engine.initSync({ module: fs.readFileSync(new URL('../pkg/vhd_compactor_bg.wasm', import.meta.url)) });
    loaded = true;
  }
  return engine;
}

/** The version of the engine. */
export async function version() {
  return load().version();
}

/** What is to be known of each format without opening a file: the engine's own table. */
export async function formats() {
  return load().formats();
}

/** @param {string | ImageSource} source */
const asSource = (source) => (typeof source === 'string' ? new PathSource(source) : source);

/** @param {OptionsGiven<string>} options */
const withSources = (options) => ({ ...options, parents: (options.parents ?? []).map(asSource) });

/**
 * @param {string | ImageSource} image
 * @param {OptionsGiven<string>} [options]
 */
export async function open(image, options = {}) {
  return new OpenImage(load(), asSource(image), withSources(options));
}

/**
 * @param {string | ImageSource} image
 * @param {OptionsGiven<string>} [options]
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
 * @param {string | ImageSource} image
 * @param {string | Sink} sink
 * @param {OptionsGiven<string>} [options]
 */
export async function compact(image, sink, options = {}) {
  const place = typeof sink === 'string' ? new PathSink(sink) : sink;
  const opened = await open(image, options);
  const { parents: _, ...chosen } = options;
  const job = opened.compact(place, chosen);
  const close = () => opened.close();
  job.result.then(close, close);
  return job;
}

/**
 * @param {string | ImageSource} original
 * @param {string | ImageSource} compacted
 * @param {OptionsGiven<string>} [options]
 */
export async function verify(original, compacted, options = {}) {
  return verifyImages(load(), asSource(original), asSource(compacted), withSources(options));
}
