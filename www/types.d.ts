/** Types that the main thread and the worker share, and what the DOM library does not know yet. */
import type {
  BlockMap as Picture,
  CompactReport,
  ErrorCode,
  EstimateReport,
  InspectReport,
  JobProgress,
  LogEntry,
  Options,
  Site,
  VerifyReport,
} from '../lib/types.js';

/** What is drawn: squares, each with its bytes by class and the blocks from which they come. */
export interface BlockMap {
  /** One square after another, `classes` numbers each. */
  bytes: Float64Array;
  classes: number;
  /** The first and the last block of each square. */
  firsts: Float64Array;
  lasts: Float64Array;
  /** Bytes of the whole disk by class. */
  totals: number[];
  /** Whether what was never stored is left out. */
  isPacked: boolean;
}

/** How many squares there is room for, and how the disk is shown. */
export interface View {
  cells: number;
  capacity: number;
  isPacked: boolean;
}

export type { Picture };

export type { CompactReport, EstimateReport, InspectReport, JobProgress, LogEntry, VerifyReport };

/** What a person chose; sources travel separately. */
export type Choices = Omit<Options, 'parents' | 'findings'>;

/** Where the new image goes. */
export type Destination =
  | { kind: 'folder'; handle: FileSystemFileHandle }
  | { kind: 'download'; name: string }
  /** A download of one file in the browser's own storage. */
  | { kind: 'staged'; name: string; stagedName: string };

/** What a set of choices would reach, or why the engine refuses it. */
export type Estimated = { estimate: EstimateReport } | { refused: string };

/** How two files differ: `none`, in their sizes, or first at a byte. */
export type FileDifference = { differs: 'none' } | { differs: 'size' } | { differs: 'bytes'; at: number };

/** What the main thread may ask of a worker: the name, what it takes, what it answers. */
export interface Calls {
  open(file: File, parents: File[], choices: Choices): InspectReport;
  /** Confirms what is free; answers with the report that is true then, or null where a run took over. */
  check(choices: Choices): InspectReport | null;
  estimates(variants: Record<string, Choices>): Record<string, Estimated>;
  blockMap(view: View, choices: Choices): BlockMap;
  compact(destination: Destination, choices: Choices): { report: CompactReport; blob: Blob | null };
  verify(original: File, compacted: File, parents: File[], choices: Choices): VerifyReport;
  /** Whether two files hold the same bytes, with progress. */
  sameBytes(made: Blob, saved: File): FileDifference;
  /** From now on the live block map is one for this view. */
  watch(view: View): void;
  cancel(): void;
}

export type Request = {
  [K in keyof Calls]: { id: number; call: K; args: Parameters<Calls[K]> };
}[keyof Calls];

export interface Failure {
  /** The engine's codes, and a few of the page's own. */
  code: ErrorCode | 'same-file' | 'blocked-folder' | 'page-incomplete' | 'reads-differently' | 'not-the-same';
  message: string;
  site: Site | null;
  expected?: string | null;
  found?: string | null;
}

/** Told while a job runs. */
export type Told =
  | { event: 'compared'; done: number; total: number }
  | { event: 'progress'; progress: JobProgress; percent: number }
  | { event: 'map'; map: BlockMap }
  | { event: 'log'; entries: LogEntry[] };

export type Answer = { id: number; value: unknown } | { id: number; failure: Failure };

/** A file with the handle it came with, where the browser gives one. */
export interface Picked {
  file: File;
  handle: FileSystemFileHandle | null;
}

declare global {
  /** Put in by the build. */
  const PAGE_VERSION: string;
  /** Put in by the build, where package.json names them. */
  const PAGE_LINKS: { source: string | null; bugs: string | null };

  interface LaunchParams {
    readonly files: readonly FileSystemHandle[];
  }

  interface Window {
    showDirectoryPicker?(options?: {
      id?: string;
      mode?: 'read' | 'readwrite';
      startIn?: FileSystemHandle | string;
    }): Promise<FileSystemDirectoryHandle>;
    launchQueue?: { setConsumer(consumer: (params: LaunchParams) => void): void };
  }

  // The DOM's types know no worker.
  interface FileSystemSyncAccessHandle {
    read(bytes: Uint8Array, options: { at: number }): number;
    write(bytes: Uint8Array, options: { at: number }): number;
    truncate(size: number): void;
    flush(): void;
    close(): void;
  }

  interface FileSystemFileHandle {
    createSyncAccessHandle(): Promise<FileSystemSyncAccessHandle>;
    queryPermission?(descriptor: { mode: 'read' }): Promise<PermissionState>;
    requestPermission?(descriptor: { mode: 'read' }): Promise<PermissionState>;
  }

  interface FileSystemDirectoryHandle {
    queryPermission?(descriptor: { mode: 'readwrite' }): Promise<PermissionState>;
    requestPermission?(descriptor: { mode: 'readwrite' }): Promise<PermissionState>;
  }

  interface DataTransferItem {
    getAsFileSystemHandle?(): Promise<FileSystemHandle | null>;
  }
}
