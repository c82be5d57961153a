/** A static file server on this machine only, for the built page. */
import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize, sep } from 'node:path';

/** @type {Record<string, string>} */
const types = {
  '.css': 'text/css; charset=utf-8',
  '.gz': 'application/gzip',
  '.html': 'text/html; charset=utf-8',
  '.ico': 'image/x-icon',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.map': 'application/json; charset=utf-8',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json; charset=utf-8',
  '.woff2': 'font/woff2',
};

/**
 * Serves a folder on the first free port from `port` upwards (0: any).
 * @param {string} folder @param {number} port @param {number} [tries]
 * @returns {Promise<{ address: string, server: import('node:http').Server }>}
 */
export async function serve(folder, port, tries = 20) {
  const server = createServer((request, response) => answer(folder, request, response));
  try {
    await new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, 'localhost', () => resolve(undefined));
    });
  } catch (error) {
    const busy = /** @type {NodeJS.ErrnoException} */ (error).code === 'EADDRINUSE';
    if (busy && tries > 1) return serve(folder, port + 1, tries - 1);
    throw error;
  }
  const bound = /** @type {import('node:net').AddressInfo} */ (server.address());
  return { address: `http://localhost:${bound.port}/`, server };
}

/**
 * @param {string} folder
 * @param {import('node:http').IncomingMessage} request
 * @param {import('node:http').ServerResponse} response
 */
function answer(folder, request, response) {
  const refuse = (/** @type {number} */ status) => response.writeHead(status).end();
  if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(405);
  const file = fileOf(folder, request.url ?? '/');
  const stat = file ? statSync(file, { throwIfNoEntry: false }) : undefined;
  if (!file || !stat?.isFile()) return refuse(404);
  response.writeHead(200, {
    'Content-Type': types[extname(file)] ?? 'application/octet-stream',
    'Content-Length': stat.size,
    // A rebuilt page must show at the next reload.
    'Cache-Control': 'no-cache',
    'X-Content-Type-Options': 'nosniff',
  });
  if (request.method === 'HEAD') return response.end();
  return createReadStream(file)
    .on('error', () => response.destroy())
    .pipe(response);
}

/** The file that a request asks for, or null for what lies outside the folder. */
function fileOf(/** @type {string} */ folder, /** @type {string} */ url) {
  let path;
  try {
    path = decodeURIComponent(new URL(url, 'http://localhost').pathname);
  } catch {
    return null;
  }
  if (path.includes('\0')) return null;
  const file = normalize(join(folder, path.endsWith('/') ? `${path}index.html` : path));
  return file.startsWith(folder + sep) ? file : null;
}
