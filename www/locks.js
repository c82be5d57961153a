/** Locks that tell other tabs, and later visits, that this tab is still there. */

/**
 * Holds a lock until `release` is called or this tab is gone.
 * @param {string} name
 * @returns {Promise<() => void>} release
 */
export async function holdLock(name) {
  /** @type {() => void} */
  let release = () => {};
  await new Promise((held) => {
    void navigator.locks.request(name, () => {
      held(undefined);
      return new Promise((resolve) => {
        release = () => resolve(undefined);
      });
    });
  });
  return () => release();
}
