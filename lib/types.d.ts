/**
 * The shapes that calls, sources and sinks share, in both hosts. Those of reports and of the engine's options are
 * generated from the engine; functions and classes are declared where they are written (`npm run build -- --package`
 * puts all of it into `types/`).
 */
import type {
  BlockMapReport,
  CompactOutcome,
  EstimateReport,
  FormatReport,
  InspectReport,
  Options as EngineOptions,
  Piece,
  VerificationReport,
} from '../pkg/vhd_compactor.js';

export type { BlockMapReport, CompactOutcome, EstimateReport, FormatReport, InspectReport, Piece, VerificationReport };

/** The stable codes of failures. */
export type ErrorCode =
  | 'read-failed'
  | 'source-changed'
  | 'write-failed'
  | 'differs'
  | 'out-of-space'
  | 'permission-denied'
  | 'in-use'
  | 'not-recognised'
  | 'corrupt'
  | 'unsupported'
  | 'wrong-image-type'
  | 'needs-parent'
  | 'parent-changed'
  | 'limit-exceeded'
  | 'cancelled'
  | 'invalid-argument'
  | 'out-of-memory'
  | 'internal';

/** Where in a file a failure was seen. */
export interface Site {
  /** The structure, in the specification's words. */
  structure: string;
  /** What `offset` counts in. */
  space: 'file' | 'disk' | 'volume';
  /** Bytes. */
  offset: number;
}

/** A file that is read, synchronously and never written. */
export interface ImageSource {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly lastModified?: number;
  /** Browser: what the engine reads through FileReaderSync, and what sinks slice. */
  readonly blob?: Blob;
  /** Exactly `length` bytes, valid until the next read; throws what went wrong. */
  read(offset: number, length: number): Uint8Array;
  /** The same into `target`, as many bytes as it has: spares a copy. */
  readInto?(target: Uint8Array, offset: number): void;
  /** Throws `source-changed` if the file is no longer what it was. */
  check?(): void;
  close?(): void;
}

/** What a sink may know of the image before anything is read of its payload. */
export interface Opened {
  readonly sources: ImageSource[];
  readonly report: InspectReport;
  /** Who another image is; throws for what is none. */
  identify(source: ImageSource): Identified;
}

/** Who an image is: what its children name as their parent, and its own parent. */
export type Identified = Pick<InspectReport, 'identity' | 'parent'>;

/** Bytes a second of each phase. Those of a scan are what it reads, with what a read costs besides its bytes. */
export type Rates = Partial<Record<JobPhase, number>>;

/** A place for the new image. It appears only with `commit`. */
export interface Sink {
  readonly kind: string;
  /** What the result is called. */
  readonly name?: string;
  /** Source pieces are cut to this many bytes. */
  readonly largestPiece?: number;
  /** Bytes a second that a phase makes by this way of saving, measured; for the time left, until it is known. */
  readonly rates?: Rates;
  /** Throws, before minutes of reading, where the new image could not be put. */
  prepare?(image: Opened): Promise<void>;
  /**
   * Whether the result, when it is to be proved, surely consists of the pieces, in their order: it is composed of
   * ranges of the sources, or each piece was read back and compared as it was written, or `compare` has done so. Then
   * the proof need not read them again.
   */
  readonly composed?: boolean;
  /** Whether it can be read back only once it stands in its place. */
  readonly isSavedFirst?: boolean;
  /** The exact size is known. With `verify`, what is written will be proved. */
  begin(size: number, sources: ImageSource[], options?: { verify?: boolean }): Promise<void>;
  /** The next piece, at `position`. */
  write(piece: Piece, position: number, sources: ImageSource[]): Promise<void>;
  commit(): Promise<void>;
  /** Leaves nothing behind. */
  abort(): Promise<void>;
  /** What was written, to be verified: called after the last `write`, or after `commit`. Null where it cannot be read. */
  readBack(): Promise<ImageSource | null>;
  /**
   * Reads all of it back, and throws where it is not what was written; called after `readBack`. `tell` is called with
   * the bytes done, and throws where the job was cancelled.
   */
  compare?(tell: (done: number) => Promise<void>): Promise<void>;
}

/** A place for what a scan has found. What is kept there of another file or other options is not used. */
export interface Findings {
  load(): Promise<Uint8Array | null>;
  save(bytes: Uint8Array): Promise<void>;
}

/** What a person may ask for: what the engine reads, and what this library does itself. */
export interface Options extends EngineOptions {
  /** Whether the result is read back and compared; true by default. */
  verify?: boolean;
  /** Where a scan's findings are kept, so that a repeat of the same job starts where it stopped. */
  findings?: Findings;
  /** The parents of a differencing disk, in any order. */
  parents?: ImageSource[];
}

/** The same where files are named as the host names them: paths in Node, `File`s in a browser, or sources. */
export type OptionsGiven<File> = Omit<Options, 'parents'> & { parents?: (File | ImageSource)[] };

export type JobState = 'queued' | 'running' | 'completed' | 'cancelled' | 'failed';
export type JobPhase = 'queued' | 'check' | 'scan' | 'write' | 'finish' | 'verify' | 'done';

export interface JobProgress {
  phase: JobPhase;
  /** Bytes of this phase. */
  bytesDone: number;
  bytesTotal: number;
  bytesPerSecond: number;
  /** To the end of the job; null while nobody knows. */
  secondsLeft: number | null;
}

export interface LogEntry {
  /** ISO 8601. */
  time: string;
  level: 'info' | 'warning' | 'error';
  message: string;
}

/**
 * The disk as a picture: for each cell its bytes by class, one cell after another. Classes: 0 absent, 1 in use,
 * 2 free, 3 zero, 4 held (free, and stays), 5 unknown, 6 dropped.
 */
export interface BlockMap {
  cells: Float64Array;
  /** How many numbers a cell has. */
  classes: number;
  blocksPerCell: number;
}

/** Something under way. Events: `state`, `progress`, `log`. */
export interface Job<T> extends EventTarget {
  readonly id: string;
  readonly state: JobState;
  /** 0 to 100. */
  readonly percentComplete: number;
  readonly progress: JobProgress;
  /** Bytes a second of each phase that is over: what a sink may say in `rates` the next time. */
  readonly rates: Rates;
  readonly log: LogEntry[];
  readonly result: Promise<T>;
  blockMap(cells: number): BlockMap | null;
  cancel(): void;
}

export interface CompactReport extends CompactOutcome {
  input: string;
  /** Null where nothing was written. */
  output: string | null;
  inputSize: number;
  verified: boolean;
  verification: VerificationReport | null;
  bytesRead: number;
  bytesWritten: number;
  elapsedMs: number;
}

export interface VerifyReport {
  original: string;
  compacted: string;
  originalSize: number;
  compactedSize: number;
  verified: boolean;
  verification: VerificationReport;
  elapsedMs: number;
}
