/**
 * What a host of the page needs beside the page: licences, and a list of headers. A webpack plugin, since
 * only webpack knows what it has put into the bundles.
 */
import { readFileSync } from 'node:fs';
import webpack from 'webpack';
import { licences } from './licences.mjs';
import { inRoot } from './paths.mjs';

/** @import { Compilation, Compiler } from 'webpack' */

const PACKAGE = /^(.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+)[\\/]/;

const HASHED = /\.[0-9a-f]{12,}\.(js|css|wasm)$/;

export class Delivery {
  /** @param {Compiler} compiler */
  apply(compiler) {
    compiler.hooks.thisCompilation.tap('Delivery', (compilation) => {
      // After the service worker, which is a compilation of its own, and before anything is compressed.
      const stage = webpack.Compilation.PROCESS_ASSETS_STAGE_OPTIMIZE_TRANSFER - 1;
      compilation.hooks.processAssets.tap({ name: 'Delivery', stage }, () => {
        emit(compilation, 'licences.txt', licences(packagesIn(compilation)));
        emit(compilation, '_headers', headers(Object.keys(compilation.assets)));
      });
    });
  }
}

/** @param {Compilation} compilation @param {string} name @param {string} text */
const emit = (compilation, name, text) => compilation.emitAsset(name, new webpack.sources.RawSource(text));

/** The folders of the npm packages in the bundles, webpack's own runtime among them. @param {Compilation} whole */
function packagesIn(whole) {
  const folders = new Set([inRoot('node_modules', 'webpack')]);
  const walk = (/** @type {Compilation} */ compilation) => {
    for (const entry of compilation.modules) {
      const modules = /** @type {any} */ (entry).modules ?? [entry];
      for (const { resource } of modules) {
        const [, folder] = PACKAGE.exec(resource ?? '') ?? [];
        if (folder) folders.add(folder);
      }
    }
    compilation.children.forEach(walk);
  };
  walk(whole);
  return [...folders].filter((folder) => !folder.includes('html-webpack-plugin')).sort();
}

/**
 * In the form that Netlify, Cloudflare Pages and others read. The policy is the page's own, with the one
 * thing added that a page cannot say of itself: that nobody may frame it. Rules of some hosts add up, so no
 * two rules here set the same header of one file.
 * @param {string[]} files
 */
function headers(files) {
  const page = readFileSync(inRoot('www/index.html'), 'utf8');
  const policy = /http-equiv="Content-Security-Policy"\s+content="([^"]+)"/.exec(page)?.[1];
  if (!policy) throw new Error('www/index.html has no Content-Security-Policy');
  const hashed = files.filter((file) => HASHED.test(file)).sort();
  const rule = (/** @type {string} */ path, /** @type {string[]} */ ...lines) => `${[path, ...lines].join('\n  ')}\n`;
  const wasm = 'Content-Type: application/wasm';
  return [
    rule(
      '/*',
      `Content-Security-Policy: ${policy}; frame-ancestors 'none'`,
      'X-Content-Type-Options: nosniff',
      'Referrer-Policy: no-referrer',
      'Cross-Origin-Opener-Policy: same-origin',
      'Permissions-Policy: camera=(), geolocation=(), microphone=(), payment=(), usb=()',
    ),
    // These keep their names, and say which version of the others is used.
    ...['/', '/index.html', '/sw.js'].map((path) => rule(path, 'Cache-Control: no-cache')),
    ...hashed.map((file) =>
      rule(`/${file}`, 'Cache-Control: public, max-age=31536000, immutable', ...(file.endsWith('.wasm') ? [wasm] : [])),
    ),
    rule('/manifest.webmanifest', 'Content-Type: application/manifest+json'),
  ].join('');
}
