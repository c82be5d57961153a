//! How a clean volume comes about: files come and go over several mounts, and states of it are kept on the way.

use std::fs;
use std::path::Path;

use crate::toolbox::ext::Mounted;
use crate::toolbox::{Random, run, text};

/// Mounts the volume in `image` four times; each time `fill` writes files and `thin_out` deletes some. Gives the
/// states before and after, oldest first, and in between those that a power cut would have left. None (said so)
/// where mounting is not allowed.
pub fn grow_old(
    image: &Path,
    random: &mut Random,
    fill: impl Fn(&Path, u64, &mut Random),
    thin_out: impl Fn(&Path, u64),
) -> Option<Vec<Vec<u8>>> {
    let beside = image.parent().unwrap();
    let mut history = vec![fs::read(image).unwrap()];
    for session in 0..4 {
        {
            let mounted = Mounted::new(image, "", beside)?;
            fill(mounted.folder(), session, random);
            run("sync", &["-f", text(mounted.folder())]);
            history.push(fs::read(image).unwrap());
            thin_out(mounted.folder(), session);
        }
        history.push(fs::read(image).unwrap());
    }
    Some(history)
}

/// Something small happens last: few structures change, and old copies of them fit each other. Gives the volume.
pub fn add_late_files(image: &Path, random: &mut Random) -> Option<Vec<u8>> {
    {
        let mounted = Mounted::new(image, "", image.parent().unwrap())?;
        for file in 0..80 {
            fs::write(mounted.folder().join(format!("late {file}")), random.bytes(3000)).unwrap();
        }
    }
    Some(fs::read(image).unwrap())
}

/// Writes files of many sizes whose names take room, every other one to `inner`, and in there two that grow in
/// turns, each time onto the disk.
pub fn write_files(folder: &Path, inner: &Path, session: u64, turns: u64, random: &mut Random) {
    for n in 0..40 {
        let len = match random.below(10) {
            0..=1 => random.below(500),
            2..=7 => random.below(12_000),
            _ => random.below(120_000),
        };
        let name = format!("a name that takes some room in its directory, session {session}, file {n}");
        fs::write(if n % 2 == 0 { folder.join(name) } else { inner.join(name) }, random.bytes(len)).unwrap();
    }
    for part in 0..turns {
        for n in 0..2 {
            let file =
                fs::OpenOptions::new().create(true).append(true).open(inner.join(format!("turns {n}")));
            let mut file = file.unwrap();
            std::io::Write::write_all(&mut file, &random.bytes(4096 + part)).unwrap();
            file.sync_data().unwrap();
        }
    }
}

/// Deletes every third file of these folders.
pub fn delete_every_third(folders: &[&Path], session: u64) {
    for folder in folders {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
        files.sort();
        for path in files.iter().skip(session as usize % 3).step_by(3) {
            fs::remove_file(path).unwrap();
        }
    }
}
