/**
 * What a browser gives a page to read and to write files, in memory, each call of which can be made to do something else:
 * `Blob`, `File`, `FileReaderSync`, a file of a picked folder, and the browser's own storage. A slice of a file is read
 * when it is asked for its bytes, as in a browser, and not when it is made.
 */

/**
 * @typedef {object} Call
 * @property {number} number from 0
 * @property {string} name
 * @property {'source' | 'output'} of
 * @property {[bytes?: Uint8Array]} args what is written
 * @property {(bytes?: Uint8Array) => any} real
 * @typedef {{ of: 'source' | 'output', bytes: Uint8Array }} Stored
 */

/** @type {(call: Call) => any} */
let act = (call) => call.real(...call.args);
let number = 0;

/** From now on `next` does what calls do, until the returned function is called. @param {(call: Call) => any} next */
export function intercept(next) {
  const before = act;
  [act, number] = [next, 0];
  return () => {
    act = before;
  };
}

/** @param {string} name @param {Call['of']} of @param {Call['real']} real @param {Call['args']} args */
function perform(name, of, real, ...args) {
  /** @type {Call} */
  const call = { number, name, of, args, real };
  number += 1;
  return act(call);
}

/** Bytes, or a range of a stored file. @typedef {Uint8Array | { file: Stored, start: number, end: number }} Part */

const lengthOf = (/** @type {Part} */ part) => (part instanceof Uint8Array ? part.length : part.end - part.start);

class MemoryBlob {
  /** @type {Part[]} */
  parts;

  /** @param {(MemoryBlob | Uint8Array | ArrayBuffer | string)[]} [parts] */
  constructor(parts = []) {
    this.parts = parts.flatMap((part) => {
      if (part instanceof MemoryBlob) return part.parts;
      if (typeof part === 'string') return [Uint8Array.from(Buffer.from(part))];
      return [Uint8Array.from(part instanceof Uint8Array ? part : new Uint8Array(part))];
    });
  }

  get size() {
    return this.parts.reduce((sum, part) => sum + lengthOf(part), 0);
  }

  slice(start = 0, end = this.size) {
    const cut = new MemoryBlob();
    let at = 0;
    for (const part of this.parts) {
      const from = Math.max(start - at, 0);
      const to = Math.min(end - at, lengthOf(part));
      if (from < to) {
        cut.parts.push(
          part instanceof Uint8Array
            ? part.subarray(from, to)
            : { ...part, start: part.start + from, end: part.start + to },
        );
      }
      at += lengthOf(part);
    }
    return cut;
  }

  read() {
    return Buffer.concat(
      this.parts.map((part) => {
        if (part instanceof Uint8Array) return part;
        const { file, start, end } = part;
        return perform('read', file.of, () => Uint8Array.from(file.bytes.subarray(start, end)));
      }),
    );
  }

  async arrayBuffer() {
    return Uint8Array.from(this.read()).buffer;
  }
}

class MemoryFile extends MemoryBlob {
  lastModified = 0;

  /** @param {Stored} file @param {string} name */
  constructor(file, name) {
    super();
    this.name = name;
    if (file.bytes.length > 0) this.parts = [{ file, start: 0, end: file.bytes.length }];
  }
}

/** Puts it in the place of what Node has. */
export function install() {
  const storage = {
    estimate: async () => perform('estimate', 'output', () => ({ quota: 1e9, usage: 0 })),
    getDirectory: async () => perform('getDirectory', 'output', () => ({ getDirectoryHandle: async () => own })),
  };
  Object.defineProperty(globalThis, 'navigator', { value: { storage }, configurable: true });
  Object.assign(globalThis, {
    Blob: MemoryBlob,
    File: MemoryFile,
    FileReaderSync: class {
      readAsArrayBuffer(/** @type {MemoryBlob} */ blob) {
        return Uint8Array.from(blob.read()).buffer;
      }
    },
  });
}

/** A file that a person chose. @param {Uint8Array} bytes @param {string} name */
export const chosen = (bytes, name) =>
  /** @type {File} */ (/** @type {any} */ (new MemoryFile({ of: 'source', bytes }, name)));

/** A file of a picked folder: what is written shows when the stream is closed. */
export class PickedFile {
  kind = 'file';
  /** Streams that are open, and whether one was ever asked for. */
  open = 0;
  isBegun = false;
  /** How often it was written to, and whether what was written has come to be seen. */
  writes = 0;
  isWritten = false;
  /** None where the file was removed. The page makes it, empty, before anything is written. @type {Stored | null} */
  file = { of: 'output', bytes: new Uint8Array() };

  constructor(/** @type {string} */ name) {
    this.name = name;
  }

  async getFile() {
    return perform('getFile', 'output', () => {
      if (!this.file) throw new DOMException('it was removed', 'NotFoundError');
      return new MemoryFile(this.file, this.name);
    });
  }

  async createWritable() {
    this.isBegun = true;
    return perform('createWritable', 'output', () => {
      this.open += 1;
      let aside = Buffer.alloc(0);
      let isOpen = true;
      const end = () => {
        if (isOpen) this.open -= 1;
        isOpen = false;
      };
      return {
        write: async (/** @type {{ position: number, data: MemoryBlob }} */ { position, data }) => {
          this.writes += 1;
          const bytes = data.read();
          perform('write', 'output', (given = bytes) => (aside = put(aside, given, position)), bytes);
        },
        truncate: async (/** @type {number} */ length) =>
          perform('truncate', 'output', () => {
            aside = Buffer.concat([aside], length);
          }),
        close: async () =>
          perform('close', 'output', () => {
            this.file = { of: 'output', bytes: Uint8Array.from(aside) };
            this.isWritten = true;
            end();
          }),
        abort: async () => perform('abort', 'output', end),
      };
    });
  }

  async remove() {
    perform('remove', 'output', () => {
      this.file = null;
      this.isWritten = false;
    });
  }
}

/** @param {Buffer<ArrayBuffer>} to @param {Uint8Array} bytes @param {number} position */
function put(to, bytes, position) {
  const front = Buffer.concat([to.subarray(0, position)], position);
  return Buffer.concat([front, bytes, to.subarray(position + bytes.length)]);
}

/** The files of the browser's own storage. @type {Map<string, Stored>} */
export const ownFiles = new Map();

const own = {
  getFileHandle: async (/** @type {string} */ name) =>
    perform('getFileHandle', 'output', () => {
      if (!ownFiles.has(name)) ownFiles.set(name, { of: 'output', bytes: new Uint8Array() });
      return ownHandle(name);
    }),
  removeEntry: async (/** @type {string} */ name) => perform('removeEntry', 'output', () => void ownFiles.delete(name)),
};

/** @param {string} name */
function ownHandle(name) {
  const file = /** @type {Stored} */ (ownFiles.get(name));
  return {
    getFile: async () => perform('getFile', 'output', () => new MemoryFile(file, name)),
    createSyncAccessHandle: async () =>
      perform('createSyncAccessHandle', 'output', () => ({
        truncate: (/** @type {number} */ length) =>
          perform('truncate', 'output', () => {
            file.bytes = new Uint8Array(length);
          }),
        write: (/** @type {Uint8Array} */ bytes, { at = 0 }) =>
          perform(
            'write',
            'output',
            (given = bytes) => {
              file.bytes.set(given, at);
              return given.length;
            },
            bytes,
          ),
        read: (/** @type {Uint8Array} */ bytes, { at = 0 }) => {
          const found = perform('read', 'output', () => file.bytes.slice(at, at + bytes.length));
          bytes.set(found);
          return found.length;
        },
        flush: () => perform('flush', 'output', () => {}),
        close: () => perform('close', 'output', () => {}),
      })),
  };
}
