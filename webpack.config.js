/** Builds the page from `www/` into `dist/`: plain files that any static server can serve. */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import CopyPlugin from 'copy-webpack-plugin';
import HtmlPlugin from 'html-webpack-plugin';
import webpack from 'webpack';
import { InjectManifest } from 'workbox-webpack-plugin';

const at = (/** @type {string} */ path) => fileURLToPath(new URL(path, import.meta.url));
const { version } = JSON.parse(readFileSync(at('./package.json'), 'utf8'));

/** @param {Record<string, unknown>} _env @param {{ mode?: string }} argv */
export default (_env, argv) => {
  const isProduction = argv.mode !== 'development';
  return {
    mode: isProduction ? 'production' : 'development',
    // No eval: the page's policy forbids it while developing, too.
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
      new webpack.DefinePlugin({ PAGE_VERSION: JSON.stringify(version) }),
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
      ...(isProduction ? [new InjectManifest({ swSrc: at('./www/sw.js'), swDest: 'sw.js', exclude: [/\.map$/] })] : []),
    ],
    performance: { maxAssetSize: 700_000, maxEntrypointSize: 120_000 },
    stats: 'errors-warnings',
    devServer: { host: '127.0.0.1', hot: false, client: { overlay: false } },
  };
};
