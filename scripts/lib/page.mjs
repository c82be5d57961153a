/** The page: webpack, into dist/. */
import { announce } from './console.mjs';
import { buildIfChanged } from './inputs.mjs';
import { inRoot } from './paths.mjs';
import { run } from './process.mjs';

const inputs = [
  ...['www', 'lib', 'pkg', 'webpack.config.js', 'package.json', 'package-lock.json', 'Cargo.lock'],
  ...['scripts/lib/delivery.mjs', 'scripts/lib/licences.mjs'],
];

/** Builds dist/ where the page, the library or the engine has changed. */
export async function buildPage() {
  const webpack = inRoot('node_modules', 'webpack', 'bin', 'webpack.js');
  await buildIfChanged('page', inputs, ['dist/index.html'], () =>
    announce('Building the page', () => run(process.execPath, [webpack, '--mode', 'production'])),
  );
}
