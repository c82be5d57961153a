/**
 * What only the tests need from the system: Debian packages, and Python readers of disk images as
 * independent judges. A test whose tool is missing skips by name, so nothing here is fatal.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { announce, say } from './console.mjs';
import { inRoot, toolsFolder } from './paths.mjs';
import { addToPath, attempt, which } from './process.mjs';

/** @typedef {{ name: string, provides: string[] }} Package a package and programs it brings */

/** @type {Package[]} */
export const testPackages = [
  // Browsers, and a screen for the dialogs of one.
  { name: 'chromium', provides: ['chromium'] },
  { name: 'chromium-driver', provides: ['chromedriver'] },
  { name: 'firefox-esr', provides: ['firefox-esr'] },
  { name: 'fonts-dejavu-core', provides: [] },
  { name: 'xvfb', provides: ['Xvfb'] },
  { name: 'openbox', provides: ['openbox'] },
  { name: 'xdotool', provides: ['xdotool'] },
  // Containers and partition tables.
  { name: 'qemu-utils', provides: ['qemu-img', 'qemu-io'] },
  { name: '7zip', provides: ['7zz'] },
  { name: 'libvhdi-utils', provides: ['vhdiinfo'] },
  { name: 'fdisk', provides: ['sfdisk'] },
  { name: 'gdisk', provides: ['sgdisk'] },
  // File systems that are mapped.
  { name: 'ntfs-3g', provides: ['mkntfs', 'ntfs-3g', 'ntfsinfo'] },
  { name: 'exfatprogs', provides: ['mkfs.exfat', 'fsck.exfat'] },
  { name: 'exfat-fuse', provides: ['mount.exfat-fuse'] },
  { name: 'dosfstools', provides: ['mkfs.fat', 'fsck.fat'] },
  { name: 'mtools', provides: ['mcopy'] },
  { name: 'e2fsprogs', provides: ['mke2fs', 'debugfs'] },
  { name: 'xfsprogs', provides: ['mkfs.xfs', 'xfs_io'] },
  { name: 'attr', provides: ['setfattr'] },
  { name: 'btrfs-progs', provides: ['mkfs.btrfs', 'btrfs', 'btrfstune'] },
  { name: 'partclone', provides: ['partclone.exfat', 'partclone.ntfs'] },
  { name: 'sleuthkit', provides: ['blkls'] },
  { name: 'mount', provides: ['losetup', 'mount'] },
  // Volumes that hold others, and file systems that are declined by name.
  { name: 'lvm2', provides: ['pvcreate'] },
  { name: 'cryptsetup-bin', provides: ['cryptsetup'] },
  { name: 'f2fs-tools', provides: ['mkfs.f2fs'] },
  { name: 'gfs2-utils', provides: ['mkfs.gfs2'] },
  { name: 'jfsutils', provides: ['mkfs.jfs'] },
  { name: 'nilfs-tools', provides: ['mkfs.nilfs2'] },
  { name: 'ocfs2-tools', provides: ['mkfs.ocfs2'] },
  { name: 'reiserfsprogs', provides: ['mkreiserfs'] },
  { name: 'udftools', provides: ['mkudffs'] },
  // The rest.
  { name: 'xz-utils', provides: ['xz'] },
  { name: 'time', provides: ['time'] },
  { name: 'python3', provides: ['python3'] },
  { name: 'python3-venv', provides: [] },
];

/** Installs the packages whose programs are missing; says what to do where it may not. */
export async function ensurePackages(/** @type {Package[]} */ packages) {
  // A plain user's PATH on Debian lacks the folder of mkfs and fsck.
  addToPath('/usr/sbin', '/sbin');
  const names = (await missing(packages)).map(({ name }) => name);
  if (names.length === 0) return;
  const apt = await aptGet();
  if (!apt) {
    say(`These packages are missing, and tests that need them will be skipped: ${names.join(' ')}`);
    say(`  An administrator can add them: apt-get install ${names.join(' ')}`);
    return;
  }
  await announce(`Installing ${names.join(' ')}`, async () => {
    await apt(['update']);
    if ((await apt(install(names))).code === 0) return;
    // One package that this system does not have must not keep the others away.
    for (const name of names) {
      const { code, output } = await apt(install([name]));
      if (code !== 0) say(`  ${name} could not be installed; tests that need it will be skipped.\n${tail(output)}`);
    }
  });
}

const install = (/** @type {string[]} */ names) => ['install', '-y', '--no-install-recommends', ...names];
const tail = (/** @type {string} */ text) => text.trimEnd().split('\n').slice(-3).join('\n').replace(/^/gm, '    ');

async function missing(/** @type {Package[]} */ packages) {
  const absent = packages.filter(({ provides }) => provides.some((program) => !which(program)));
  // Packages without a program of their own are looked up by name.
  const unnamed = packages.filter(({ provides }) => provides.length === 0);
  if (unnamed.length === 0 || !which('dpkg-query')) return absent;
  const { output } = await attempt('dpkg-query', [
    '-W',
    '-f',
    '${Package} ${db:Status-Status}\n',
    ...unnamed.map(({ name }) => name),
  ]);
  return [...absent, ...unnamed.filter(({ name }) => !output.split('\n').includes(`${name} installed`))];
}

/** How to call apt-get here: as root, or through a sudo that lets us; null where neither will do. */
async function aptGet() {
  if (!which('apt-get')) return null;
  /** @type {string[]} */
  let asRoot = [];
  if (process.getuid?.() !== 0) {
    if (!which('sudo')) return null;
    // It may ask for a password only where somebody can answer.
    asRoot = process.stdin.isTTY ? ['sudo'] : ['sudo', '-n'];
    const [sudo = '', ...flags] = asRoot;
    if ((await attempt(sudo, [...flags, 'true'])).code !== 0) return null;
  }
  return (/** @type {string[]} */ args) => {
    const [command = '', ...rest] = [...asRoot, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-q', ...args];
    return attempt(command, rest);
  };
}

/** A virtual environment of the pinned requirements: $PYTHON, and `python3` on PATH. */
export async function ensurePython() {
  const requirements = inRoot('tests', 'requirements.txt');
  const version = createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 12);
  const home = join(toolsFolder, `python-${version}`);
  const python = join(home, 'bin', 'python3');
  if (!existsSync(join(home, 'complete'))) {
    if (!which('python3')) return;
    rmSync(home, { recursive: true, force: true });
    await announce('Preparing the Python readers of disk images', async () => {
      const made = await attempt('python3', ['-m', 'venv', home]);
      const filled = made.code === 0 ? await attempt(python, ['-m', 'pip', 'install', '-q', '-r', requirements]) : made;
      if (filled.code === 0) mkdirSync(join(home, 'complete'));
      else say(`  not possible; tests that need them will be skipped.\n${tail(filled.output)}`);
    });
  }
  if (!existsSync(join(home, 'complete'))) return;
  process.env.PYTHON = python;
  addToPath(dirname(python));
}
