/** Builds the page from `www/` into `dist/`: plain files that any static server can serve. */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { constants } from 'node:zlib';

import CompressionPlugin from 'compression-webpack-plugin';
import CopyPlugin from 'copy-webpack-plugin';
import HtmlPlugin from 'html-webpack-plugin';
import webpack from 'webpack';
import { InjectManifest } from 'workbox-webpack-plugin';
import { Delivery } from './scripts/lib/delivery.mjs';

const at = (/** @type {string} */ path) => fileURLToPath(new URL(path, import.meta.url));
const { version, repository, bugs } = JSON.parse(readFileSync(at('./package.json'), 'utf8'));
const links = { source: repository?.url?.replace(/^git\+|\.git$/g, '') ?? null, bugs: bugs?.url ?? null };

/** @param {Record<string, unknown>} _env @param {{ mode?: string }} argv */
export default (_env, argv) => {
  const isProduction = argv.mode !== 'development';
  return {
    mode: isProduction ? 'production' : 'development',
    // No eval: the page's policy forbids it while developing, too. The maps are published: the source is open, a
    // fault that is reported then names real lines, and nobody loads them without a debugger.
    devtool: 'source-map',
    entry: { main: at('./www/main.js') },
    output: {
      path: at('./dist'),
      clean: true,
      filename: isProduction ? '[name].[contenthash:12].js' : '[name].js',
      cssFilename: isProduction ? '[name].[contenthash:12].css' : '[name].css',
      assetModuleFilename: '[name].[contenthash:12][ext]',
      publicPath: 'auto',
      trustedTypes: { policyName: 'vhd-compactor#webpack' },
    },
    experiments: { css: true },
    plugins: [
      new webpack.DefinePlugin({ PAGE_VERSION: JSON.stringify(version), PAGE_LINKS: JSON.stringify(links) }),
      new HtmlPlugin({
        template: at('./www/index.html'),
        scriptLoading: 'defer',
        minify: isProduction && {
          collapseWhitespace: true,
          conservativeCollapse: true,
          removeComments: true,
        },
      }),
      new CopyPlugin({
        patterns: [
          { from: at('./www/manifest.webmanifest') },
          { from: at('./www/icons/*.{svg,png}'), to: 'icons/[name][ext]' },
          { from: at('./www/sample/sample.vhdx.gz'), to: 'sample/[name][ext]' },
        ],
      }),
      ...(isProduction ? forDelivery() : []),
    ],
    performance: { maxAssetSize: 1_000_000, maxEntrypointSize: 120_000 },
    stats: 'errors-warnings',
  };
};

/** What turns the page into a site: it works offline, carries its licences, and is packed once, here. */
function forDelivery() {
  const test = /\.(html|css|js|wasm|svg|webmanifest|txt)$/;
  return [
    new InjectManifest({
      swSrc: at('./www/sw.js'),
      swDest: 'sw.js',
      exclude: [/\.map$/, /^_headers$/, /^licences\.txt$/],
    }),
    new Delivery(),
    new CompressionPlugin({ test, algorithm: 'gzip', filename: '[file].gz', compressionOptions: { level: 9 } }),
    new CompressionPlugin({
      test,
      algorithm: 'brotliCompress',
      filename: '[file].br',
      compressionOptions: /** @type {any} */ ({ params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }),
    }),
  ];
}
