/** What a browser must have for the engine to run. */

/**
 * The smallest module with the newest things that the engine is compiled with: a vector (SIMD) and a copy of
 * memory (bulk memory).
 *
 *   header │ type: () → () │ function │ memory: one page │ code: i32 0 ×3, memory.copy; v128.const, drop
 */
const PROBE = Uint8Array.from([
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...[0x01, 0x04, 0x01, 0x60, 0x00, 0x00],
  ...[0x03, 0x02, 0x01, 0x00],
  ...[0x05, 0x03, 0x01, 0x00, 0x01],
  ...[0x0a, 0x21, 0x01, 0x1f, 0x00],
  ...[0x41, 0x00, 0x41, 0x00, 0x41, 0x00, 0xfc, 0x0a, 0x00, 0x00],
  ...[0xfd, 0x0c, ...new Array(16).fill(0), 0x1a, 0x0b],
]);

/**
 * What stands in the engine's way, or null.
 * @returns {'off' | 'old' | null}
 */
export function lackingEngine() {
  if (typeof WebAssembly !== 'object') return 'off';
  return WebAssembly.validate(PROBE) ? null : 'old';
}
