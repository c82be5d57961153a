/**
 * Loaded before the command: kills the process at one of its calls to the file system in a folder, as the numbers of
 * `faults.mjs` go. `KILLED_AT` is the number, with ` torn` for the middle of a write.
 */
import { writeSync } from 'node:fs';
import { intercept } from './faults.mjs';

const [at, torn] = (process.env.KILLED_AT ?? '').split(' ');

intercept(process.env.KILLED_IN ?? '', ({ number, name, args, real }) => {
  if (number === Number(at)) {
    const [fd, bytes, from, length, position] = args;
    if (name === 'write' && torn) writeSync(fd, bytes, from, length >> 1, position);
    process.kill(process.pid, 'SIGKILL');
  }
  return real(...args);
});
