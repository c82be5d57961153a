/**
 * What is said of formats where no engine is loaded: in the page's own thread, and before a command begins. The
 * engine has the table (`formats()`); a test proves that this agrees with it.
 */

/** The formats by their names in JSON and options. @type {('vhd' | 'vhdx')[]} */
export const FORMAT_NAMES = ['vhd', 'vhdx'];

/** The extensions of their files, without the dot, the usual one first. */
export const EXTENSIONS = { vhd: ['vhd', 'avhd'], vhdx: ['vhdx', 'avhdx'] };

/**
 * The format that a file's name promises; null where it promises none.
 * @param {string} name
 */
export function formatOfName(name) {
  const dot = name.lastIndexOf('.');
  const extension = name.slice(dot + 1).toLowerCase();
  return (dot >= 0 && FORMAT_NAMES.find((format) => EXTENSIONS[format].includes(extension))) || null;
}

/** What a file dialog takes, as the `accept` of an input. */
export const ACCEPTED_FILES = FORMAT_NAMES.flatMap((format) => EXTENSIONS[format].map((one) => `.${one}`)).join(',');
