/**
 * The programs whose disks people bring: where each keeps them, how to stop it, and how a new image takes
 * the old one's place. One table, shown before a run (where is my disk?) and after it (what next?).
 */

/** @import { InspectReport } from './types.js' */

/** @typedef {{ say: string, command?: string }} Step text, in which backticks mark what is a name or a path */
/** @typedef {{ file: string, holds: string, paths: string[] }} Disk */
/**
 * @typedef {object} Product
 * @property {string} id
 * @property {string} name
 * @property {Step[]} stop what must be done before its disk is read
 * @property {Disk[]} disks
 * @property {Step[]} [find] how to ask for the place
 * @property {string} [note]
 * @property {Step[]} next after the stop: the swap
 * @property {(name: string, report: InspectReport) => boolean} made whether an image looks like one of its disks
 */

const LAST = { say: 'When all is well, delete the old image.' };

/** @type {Product[]} */
export const PRODUCTS = [
  {
    id: 'wsl',
    name: 'WSL',
    stop: [{ say: 'End WSL; it must not run while the disk is read.', command: 'wsl --shutdown' }],
    disks: [
      {
        file: 'ext4.vhdx',
        holds: 'a distribution',
        paths: ['%LOCALAPPDATA%\\wsl', '%LOCALAPPDATA%\\Packages'],
      },
    ],
    find: [
      {
        say: 'PowerShell lists the folder of each distribution:',
        command:
          'Get-ChildItem HKCU:\\Software\\Microsoft\\Windows\\CurrentVersion\\Lxss | ForEach-Object { $_.GetValue("DistributionName") + "  " + $_.GetValue("BasePath") }',
      },
    ],
    note: '`swap.vhdx` is made anew at every start: deleting it while WSL is ended is enough.',
    next: [
      { say: 'End WSL.', command: 'wsl --shutdown' },
      { say: 'Rename the old `ext4.vhdx` to `ext4.old.vhdx`.' },
      { say: 'Move the new image into the same folder and name it `ext4.vhdx`.' },
      { say: 'Start the distribution and look at your files.' },
      LAST,
    ],
    made: (name) => /^ext4\b.*\.vhdx$/i.test(name),
  },
  {
    id: 'docker',
    name: 'Docker Desktop',
    stop: [
      { say: 'Prune what you do not need first, if you like.', command: 'docker system prune' },
      { say: 'Quit Docker Desktop from its icon in the task bar, then end WSL.', command: 'wsl --shutdown' },
    ],
    disks: [
      {
        file: 'docker_data.vhdx',
        holds: 'images, containers and volumes',
        paths: ['%LOCALAPPDATA%\\Docker\\wsl\\disk'],
      },
      { file: 'ext4.vhdx', holds: 'the same, in older versions', paths: ['%LOCALAPPDATA%\\Docker\\wsl\\data'] },
      {
        file: 'DockerDesktop.vhdx',
        holds: 'the same, when it runs on Hyper-V',
        paths: ['%PROGRAMDATA%\\DockerDesktop\\vm-data'],
      },
    ],
    next: [
      { say: 'Quit Docker Desktop, then end WSL.', command: 'wsl --shutdown' },
      { say: 'Rename the old image, and move the new one to its place, under its old name.' },
      { say: 'Start Docker Desktop. Images and volumes should be as before.', command: 'docker system df' },
      LAST,
    ],
    made: (name) => /^docker|\bdocker/i.test(name),
  },
  {
    id: 'podman',
    name: 'Podman',
    stop: [{ say: 'Stop the machine, then end WSL.', command: 'podman machine stop; wsl --shutdown' }],
    disks: [
      {
        file: 'ext4.vhdx',
        holds: 'the machine, on WSL',
        paths: ['%USERPROFILE%\\.local\\share\\containers\\podman\\machine\\wsl\\wsldist'],
      },
      {
        file: 'podman-machine-default-amd64.vhdx',
        holds: 'the machine, on Hyper-V',
        paths: ['%USERPROFILE%\\.local\\share\\containers\\podman\\machine\\hyperv'],
      },
    ],
    next: [
      { say: 'Stop the machine, then end WSL.', command: 'podman machine stop; wsl --shutdown' },
      { say: 'Rename the old image, and move the new one to its place, under its old name.' },
      { say: 'Start it, and look at what it holds.', command: 'podman machine start; podman images' },
      LAST,
    ],
    made: (name) => /podman/i.test(name),
  },
  {
    id: 'hyperv',
    name: 'Hyper-V',
    stop: [{ say: 'Shut the machine down (not “save”).', command: 'Stop-VM -Name "NAME"' }],
    disks: [
      {
        file: 'NAME.vhdx',
        holds: 'a machine’s disk; with checkpoints, drop its `.avhdx` together with all of its parents',
        paths: ['C:\\ProgramData\\Microsoft\\Windows\\Virtual Hard Disks', 'C:\\Users\\Public\\Documents\\Hyper-V'],
      },
    ],
    find: [
      {
        say: 'PowerShell, as administrator, lists the disks of every machine:',
        command: 'Get-VM | Get-VMHardDiskDrive | Select-Object VMName, Path',
      },
    ],
    next: [
      { say: 'Shut the machine down. It must have no checkpoints of the old image.' },
      { say: 'Put the new image in a folder that is neither compressed nor encrypted.' },
      {
        say: 'In the machine’s settings choose the hard drive, Browse, and pick the new image: that also gives the machine access to it.',
      },
      // Microsoft Learn, resilient change tracking: both files belong to the image that they stand beside.
      {
        say: 'Do not keep `.rct` and `.mrt` files of the old image beside the new one: they note changes for backups, and the next backup is then a full one.',
      },
      // Microsoft Learn, Set-VHD.
      {
        say: 'A checkpoint that was moved finds its parent again by:',
        command: 'Set-VHD -Path CHILD.avhdx -ParentPath PARENT.vhdx',
      },
      { say: 'Start it.' },
      LAST,
    ],
    made: (name, { format, volumes }) =>
      /\.avhdx?$/i.test(name) || (format === 'vhdx' && volumes.some(({ fileSystem }) => fileSystem === 'NTFS')),
  },
  {
    id: 'virtualbox',
    name: 'VirtualBox',
    stop: [{ say: 'Power the machine off; it must have no snapshots.' }],
    disks: [{ file: 'NAME.vhd', holds: 'a machine’s disk', paths: ['%USERPROFILE%\\VirtualBox VMs'] }],
    find: [{ say: 'It tells the place of every disk:', command: 'VBoxManage list hdds' }],
    next: [
      { say: 'Power the machine off; it must have no snapshots.' },
      { say: 'In its storage settings remove the old disk, then add the new image to the same controller and port.' },
      {
        say: 'If VirtualBox says that the identifier is already known, remove the old disk in the Virtual Media Manager (keep the file) and add the new one again.',
      },
      { say: 'Start it.' },
      LAST,
    ],
    made: (name, { creator }) => /vbox|virtualbox/i.test(`${creator} ${name}`),
  },
  {
    id: 'profiles',
    name: 'Profile containers',
    stop: [
      { say: 'The user must have signed out everywhere, or the disk is still attached.' },
      {
        say: 'On the file server, who still holds it:',
        command: 'Get-SmbOpenFile | Where-Object Path -like "*.vhd*"',
      },
    ],
    disks: [
      { file: 'Profile_NAME.vhdx, ODFC_NAME.vhdx', holds: 'FSLogix profiles and Office data', paths: [] },
      { file: 'UVHD-SID.vhdx', holds: 'user profile disks', paths: [] },
    ],
    find: [
      {
        say: 'On a session host, the share that they are kept on:',
        command: 'Get-ItemProperty HKLM:\\SOFTWARE\\FSLogix\\Profiles -Name VHDLocations',
      },
    ],
    next: [
      { say: 'See that the user is still signed out.' },
      { say: 'Rename the old image, and move the new one to its place, under its old name.' },
      {
        say: 'Give it the same owner and permissions, or the user gets no profile.',
        command: 'icacls "OLD.vhdx" /save acl.txt',
      },
      { say: 'Have the user sign in once.' },
      LAST,
    ],
    made: (name) => /^(profile|odfc)_|^uvhd-/i.test(name),
  },
  {
    id: 'azure',
    name: 'Azure',
    stop: [{ say: 'Stop the machine so that it is deallocated, then export the disk from the portal (Disk export).' }],
    disks: [
      {
        file: 'abcd.vhd',
        holds: 'a fixed-size VHD, which this page can turn into a dynamic one',
        paths: [],
      },
    ],
    next: [
      {
        say: 'Azure runs fixed-size VHDs. Make one on the way up:',
        command: 'qemu-img convert -O vpc -o subformat=fixed,force_size=on new.vhd upload.vhd',
      },
      { say: 'Make a managed disk of the upload, attach it to a test machine first, then swap the disks.' },
    ],
    made: (_, { format, diskType }) => format === 'vhd' && diskType === 'fixed',
  },
];

/**
 * The products that an image may belong to, the likeliest first; none where nothing tells.
 * @param {string} name
 * @param {InspectReport} report
 */
export const productsOf = (name, report) => PRODUCTS.filter(({ made }) => made(name, report));
