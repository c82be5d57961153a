//! Programs of others that read the files of a damaged volume, whatever it has come to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::toolbox::{command, digest_of, text, unmount};

/// Contents by program and path: a digest of what was read.
pub type Files = BTreeMap<String, String>;

/// A damaged file may say that it is as large as it likes.
const MAX_FILE: u64 = 64 << 20;
/// Directories that contain each other have an end.
const MAX_DEPTH: usize = 6;
/// How long a program may take over a volume that confuses it.
const SECONDS: &str = "20";

/// The files that 7-Zip unpacks from an image.
pub fn seven_zip(image: &Path) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let out = format!("-o{}", text(folder.path()));
    // In blocks of 512 bytes: a damaged file must not fill the disk.
    let limit = format!("ulimit -f {}; exec timeout {SECONDS} \"$@\"", MAX_FILE / 512);
    let unpack = ["7zz", "x", "-y", "-snl-", "-bso0", "-bse0", "-bsp0", &out, text(image)];
    let _ = command("sh").args(["-c", &limit, "sh"]).args(unpack).output().unwrap();
    let mut files = Files::new();
    collect("7-Zip", folder.path(), folder.path(), MAX_DEPTH, &mut files);
    files
}

/// The files that debugfs writes out. It reads the file system as it lies, without a replay, and heeds checksums.
pub fn debugfs(image: &Path) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let limit = format!("ulimit -f {}; exec timeout {SECONDS} \"$@\"", MAX_FILE / 512);
    let dump = ["debugfs", "-R", &format!("rdump / {}", text(folder.path())), text(image)];
    let _ = command("sh").args(["-c", &limit, "sh"]).args(dump).output().unwrap();
    let mut files = Files::new();
    collect("debugfs", folder.path(), folder.path(), MAX_DEPTH, &mut files);
    files
}

/// The files that a mounted driver reads: `mount` mounts `image` read-only on the folder it is given, and says
/// whether that worked.
pub fn mounted(driver: &str, image: &Path, mount: impl FnOnce(&Path, &Path) -> bool) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::new();
    if mount(image, folder.path()) {
        collect(driver, folder.path(), folder.path(), MAX_DEPTH, &mut files);
        unmount(folder.path());
    }
    files
}

/// The files that the kernel's driver of a file system reads, mounted with these options.
pub fn linux(image: &Path, file_system: &str, options: &str) -> Files {
    mounted("Linux", image, |image, folder| {
        let arguments = [SECONDS, "mount", "-t", file_system, "-o", options, text(image), text(folder)];
        command("timeout").args(arguments).output().unwrap().status.success()
    })
}

/// The files that ntfs-3g reads.
pub fn ntfs_3g(image: &Path) -> Files {
    mounted("ntfs-3g", image, |image, folder| {
        let arguments = [SECONDS, "ntfs-3g", "-o", "ro,streams_interface=windows", text(image), text(folder)];
        command("timeout").args(arguments).output().unwrap().status.success()
    })
}

/// Adds every file below `folder` that can be read to its end.
fn collect(program: &str, top: &Path, folder: &Path, depth: usize, files: &mut Files) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() && depth > 0 {
            collect(program, top, &path, depth - 1, files);
        } else if metadata.is_file()
            && let Some(digest) = digest(&path)
        {
            let name = path.strip_prefix(top).unwrap().display();
            files.insert(format!("{program}: {name}"), digest);
        }
    }
}

/// The digest of a file's contents, of its first bytes if it is very long; none if it cannot be read.
fn digest(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(digest_of(&bytes))
}
