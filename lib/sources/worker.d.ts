/** Workers only, and so not part of TypeScript's description of the DOM. */
declare class FileReaderSync {
  readAsArrayBuffer(blob: Blob): ArrayBuffer;
}
