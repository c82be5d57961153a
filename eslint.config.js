import js from '@eslint/js';
import globals from 'globals';

export default [
  { ignores: ['dist/', 'pkg/', 'pkg-*/', 'target/', 'fuzz/'] },
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      curly: ['error', 'multi-line'],
      eqeqeq: 'error',
      'no-constructor-return': 'error',
      'no-implicit-coercion': 'error',
      'no-param-reassign': 'error',
      'no-shadow': ['error', { builtinGlobals: false }],
      'no-unused-vars': ['error', { varsIgnorePattern: '^_', argsIgnorePattern: '^_' }],
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error',
      'prefer-template': 'error',
    },
  },
  {
    files: ['cli/**', 'scripts/**', 'benches/**', 'tests/**', '*.config.js'],
    languageOptions: { globals: globals.node },
  },
  // What lib/ and www/ may name: the page, its workers, and what Node shares with them.
  {
    files: ['lib/**'],
    languageOptions: { globals: { ...globals['shared-node-browser'], ...globals.worker } },
  },
  {
    files: ['lib/job.js', 'lib/*.node.js', 'lib/*/{path,temporary,ancestors,writer}.js'],
    languageOptions: { globals: globals.node },
  },
  {
    files: ['www/**'],
    languageOptions: { globals: { ...globals.browser, ...globals.worker, ...globals.serviceworker } },
  },
  // Functions there run inside the page.
  { files: ['tests/e2e/**'], languageOptions: { globals: globals.browser } },
];
