/** The built page on this machine only, by serve-static. docs/hosting.md says what a public server needs. */
import { createServer } from 'node:http';
import serveStatic from 'serve-static';

/**
 * Serves a folder on the first free port from `port` upwards (0: any).
 * @param {string} folder @param {number} port @param {number} [tries]
 * @returns {Promise<{ address: string, server: import('node:http').Server }>}
 */
export async function serve(folder, port, tries = 20) {
  const files = serveStatic(folder, {
    redirect: false,
    // A rebuilt page must show at the next reload.
    setHeaders: (response) => response.setHeader('Cache-Control', 'no-cache'),
  });
  const server = createServer((request, response) => files(request, response, () => response.writeHead(404).end()));
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
