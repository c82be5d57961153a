//! Images that other programs made. None is committed: `tests/images.tsv` names them, says where they are
//! published and under which licence. They are looked for in the folder `$VHD_COMPACTOR_CORPUS`, else in
//! `../shared/corpus`, as they are or packed by xz.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use vhd_compactor::io::NativeFile;

use super::{command, have, sha256, skip};

/// A line of the list.
struct Listed {
    sha256: &'static str,
    reads_as: Option<&'static str>,
    published: String,
}

fn listed(name: &str) -> Listed {
    let line = include_str!("../../images.tsv").lines().find(|line| line.split('\t').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("{name} is not in tests/images.tsv"));
    let [_, _, sha256, reads_as, repository, revision, path, _] =
        line.split('\t').collect::<Vec<_>>()[..].try_into().unwrap();
    Listed {
        sha256,
        reads_as: Some(reads_as).filter(|digest| *digest != "-"),
        published: format!("{repository} {revision} {path}"),
    }
}

/// Puts an image into `dir`; none (said so) where it is not at hand.
pub fn unpack(name: &str, dir: &Path) -> Option<PathBuf> {
    let listed = listed(name);
    let Some(found) = find(name) else {
        skip(&format!("the image {name} is not at hand ({})", listed.published));
        return None;
    };
    let path = dir.join(name);
    if found.extension().is_some_and(|extension| extension == "xz") {
        if !have(&["xz"]) {
            return None;
        }
        let done =
            command("xz").arg("-dc").arg(&found).stdout(File::create(&path).unwrap()).status().unwrap();
        assert!(done.success(), "xz -dc {}", found.display());
    } else {
        fs::copy(&found, &path).unwrap();
    }
    let found_sha256 = sha256(&NativeFile::open(&path).unwrap());
    assert_eq!(found_sha256, listed.sha256, "{} is another image than the list names", found.display());
    Some(path)
}

fn find(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("VHD_COMPACTOR_CORPUS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"),
    };
    let places = ["", "real"].map(|sub| folder.join(sub));
    let names = [name.to_owned(), format!("{name}.xz")];
    places.iter().flat_map(|place| names.iter().map(|name| place.join(name))).find(|path| path.is_file())
}

/// The first 16 digits of the SHA-256 of the image's virtual disk, as other programs read it.
pub fn reads_as(name: &str) -> &'static str {
    listed(name).reads_as.unwrap_or_else(|| panic!("no other program's reading of {name} is listed"))
}
