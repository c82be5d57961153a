//! The log: finds the active sequence and replays it in memory (MS-VHDX 2.3).
//!
//! ```text
//!   log (a ring of 4 KiB sectors)
//!   ░░░ entry 7 │ entry 8 │ entry 9 ░░░░░ old entry ░░░░
//!       ▲ tail ◄──────────── head: the newest valid entry; its `Tail` names the oldest one that is
//!                                  still needed. Tail to head is the active sequence.
//! ```
//! Where there should be a log and no valid sequence is found, the file is refused, as the specification
//! and Windows do (QEMU reads such a file as if there were no log, which may be stale).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use uuid::Uuid;

use super::format::LOG_SECTOR;
use super::log_entry::{Entry, Ring, Write};
use crate::error::{Error, Result, Site};
use crate::io::{Overlay, ReadAt, read_vec};
use crate::units::{Space, index, length};

/// Largest log that is replayed; real ones have 1 MiB.
const MAX_LOG: u64 = 64 << 20;

/// Replays the log at `range` of `file`, whose valid entries carry `guid`. Also tells how many entries
/// were replayed.
pub fn replay(
    file: Rc<dyn ReadAt>,
    range: Range<u64>,
    guid: Uuid,
) -> Result<(Overlay<Rc<dyn ReadAt>>, usize)> {
    let length = length(&range);
    if length > MAX_LOG {
        let site = Site { structure: "VHDX header", space: Space::File, offset: range.start };
        let message = "the log that must be replayed is too long; on a copy of the file, let Windows mount the disk \
                       or `qemu-img check -r all` replay it";
        return Err(Error::limit(site, message).expected(format_args!("at most {MAX_LOG} bytes"), length));
    }
    let bytes = read_vec(&file, range.start, index(length, "the log")?)?;
    let log = Ring { bytes: &bytes, sectors: length / LOG_SECTOR, range, guid };
    let sequence = active_sequence(&log)?;
    let overlay = apply(&log, &sequence, file)?;
    Ok((overlay, sequence.len()))
}

/// The entries of the newest valid and complete sequence, the oldest first (2.3.3, steps 1 to 7).
///
/// Entries cannot share sectors, so each has at most one successor and one predecessor, and the
/// sequences that the specification's scan would try are the chains of successors.
fn active_sequence(log: &Ring) -> Result<Vec<Entry>> {
    let mut entries = BTreeMap::new();
    for sector in 0..log.sectors {
        if let Some(entry) = log.entry(sector)? {
            entries.insert(sector, entry);
        }
    }
    let successor = |entry: &Entry| {
        let next = entries.get(&log.onward(entry.start, entry.sectors))?;
        (entry.sequence().checked_add(1) == Some(next.sequence())).then_some(next)
    };
    let followers: BTreeSet<u64> = entries.values().filter_map(successor).map(|entry| entry.start).collect();
    let mut active: Vec<Entry> = Vec::new();
    for first in entries.values().filter(|entry| !followers.contains(&entry.start)) {
        let mut chain: Vec<&Entry> = vec![first];
        while let Some(next) = chain.last().and_then(|last| successor(last)) {
            chain.push(next);
        }
        let Some(head) = chain.last() else { continue };
        let Some(from) = chain.iter().position(|entry| entry.start == head.tail()) else { continue };
        match active.last().map(Entry::sequence) {
            Some(best) if best > head.sequence() => {}
            Some(best) if best == head.sequence() => {
                return Err(log.corrupt(
                    head.start,
                    16,
                    "two sequences of log entries claim to be the newest",
                ));
            }
            _ => active = chain.iter().skip(from).map(|&entry| entry.clone()).collect(),
        }
    }
    if active.is_empty() {
        return Err(log.corrupt(
            0,
            0,
            "the log must be replayed, and there is no complete sequence of entries in it",
        ));
    }
    Ok(active)
}

fn apply(log: &Ring, sequence: &[Entry], file: Rc<dyn ReadAt>) -> Result<Overlay<Rc<dyn ReadAt>>> {
    let head = sequence.last().ok_or_else(|| Error::internal("an empty log sequence"))?;
    let flushed = head.header.flushed_file_offset.get();
    if file.size() < flushed {
        let message = "the file is shorter than when its log was written: it was cut off";
        return Err(log
            .corrupt(head.start, 48, message)
            .expected(format_args!("{flushed} bytes or more"), file.size()));
    }
    let mut overlay = Overlay::new(file);
    for entry in sequence {
        log.writes(entry, &mut |range, write| {
            overlay.extend_to(range.end);
            match write {
                Write::Zeros(length) => overlay.patch_zeros(range.start, length),
                Write::Sector { leading, middle, trailing } => {
                    overlay.patch_bytes(range.start, [&leading, middle, &trailing].concat())
                }
            }
        })?;
    }
    overlay.extend_to(head.header.last_file_offset.get());
    Ok(overlay)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        BAT, Desc, FILE, HEADER_1, MIB as MB, TestImage, bat_sector, dirty, log_entry, state,
    };
    use crate::error::ErrorKind;
    use crate::image::BlockState;
    use crate::io::{ReadAt, read_vec};
    use crate::units::FileOffset;

    #[test]
    fn one_entry_is_replayed_and_told() {
        let image = dirty(&[(0, log_entry(1, 0, FILE, &[bat_sector(3, 2)]))]);
        let opened = image.open().unwrap();
        assert_eq!(opened.blocks.get(3), BlockState::Zero);
        assert_eq!(opened.blocks.get(0), BlockState::Present(FileOffset::new(4 << 20)));
        assert_eq!(opened.warnings[0].code, "log-replayed");
        assert!(opened.container.is_verbatim(FileOffset::new(4 << 20), 1 << 20));
        assert!(!opened.container.is_verbatim(FileOffset::new(BAT as u64), 4096));
    }

    #[test]
    fn everything_that_is_logged_is_read_through_the_log() {
        // The region table moves the metadata, which is zero where it was, and the BAT has its first and last
        // bytes in the descriptor.
        let mut moved = TestImage::dynamic();
        moved.bytes.resize(8 * MB, 0);
        let metadata = moved.bytes[2 * MB..3 * MB].to_vec();
        moved.put(7 * MB, &metadata);
        for table in [192 << 10, 256 << 10] {
            moved.region(table, 1, "8b7ca206-4790-4b9a-b8fe-575f050f886e", 7 * MB, MB, 1);
        }
        moved.seal();
        let sector =
            |at: usize| Desc::Data(at as u64, moved.bytes[at..at + 4096].to_vec().try_into().unwrap());
        let writes = [
            sector(192 << 10),
            sector(256 << 10),
            Desc::Zero(2 << 20, 1 << 20),
            sector(7 * MB),
            sector(7 * MB + (64 << 10)),
            bat_sector(511, 3),
        ];
        let image = dirty(&[(9, log_entry(8, 9, (6 << 20, 8 << 20), &writes))]);
        let mut clean = moved.clone();
        clean.bat(511, 3);
        let read = |image: &TestImage| {
            let disk = image.disk();
            read_vec(&disk, 0, usize::try_from(disk.size()).unwrap()).unwrap()
        };
        assert_eq!(read(&image), read(&clean));
        assert_eq!(image.open().unwrap().container.size(), 8 << 20);
    }

    #[test]
    fn the_file_grows_as_the_log_says() {
        // Block 3 lies where the file does not reach yet.
        let image = dirty(&[(0, log_entry(1, 0, (6 << 20, 9 << 20), &[bat_sector(3, 8 << 20 | 6)]))]);
        let opened = image.open().unwrap();
        assert_eq!((opened.container.size(), opened.container.file_size()), (9 << 20, 6 << 20));
        assert!(!opened.container.is_verbatim(FileOffset::new(8 << 20), 1 << 20));
        let disk = image.disk();
        assert_eq!(read_vec(&disk, 3 << 20, 512 << 10).unwrap(), vec![0; 512 << 10]);
    }

    #[test]
    fn replay_starts_at_the_tail_and_goes_around_the_end() {
        // Entries 5 to 8 end on sector 3, after the wrap; the tail is entry 6. Entry 5 is applied already.
        let image = dirty(&[
            (250, log_entry(5, 250, FILE, &[bat_sector(3, 1)])),
            (252, log_entry(6, 250, FILE, &[Desc::Zero(3 << 20, 4096)])),
            (253, log_entry(7, 252, FILE, &[bat_sector(3, 3), bat_sector(3, 2)])),
            (0, log_entry(8, 252, FILE, &[])),
        ]);
        assert_eq!(state(&image, 3), BlockState::Zero);
        assert!(image.open().unwrap().warnings[0].message.contains("3 entries"));
    }

    #[test]
    fn the_newest_complete_sequence_wins() {
        let old = (0, log_entry(20, 0, FILE, &[bat_sector(3, 1)]));
        let new = (100, log_entry(30, 100, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[old.clone(), new.clone()]), 3), BlockState::Zero);
        // The same the other way around.
        let swapped = dirty(&[(100, old.1.clone()), (0, log_entry(30, 0, FILE, &[bat_sector(3, 2)]))]);
        // Entry 20 at sector 100 names sector 0 as its tail, which is not in its sequence.
        assert_eq!(state(&swapped, 3), BlockState::Zero);
        // A newer entry whose tail was overwritten is not complete.
        let incomplete = (100, log_entry(30, 50, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[old.clone(), incomplete]), 3), BlockState::Undefined);
        let twin = (100, log_entry(20, 100, FILE, &[bat_sector(3, 2)]));
        dirty(&[old, twin]).refused(ErrorKind::Corrupt, "claim to be the newest");
    }

    #[test]
    fn numbers_must_follow_each_other() {
        let first = (0, log_entry(1, 0, FILE, &[bat_sector(3, 1)]));
        let next = (2, log_entry(2, 0, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[first.clone(), next]), 3), BlockState::Zero);
        let gap = (2, log_entry(3, 0, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[first.clone(), gap]), 3), BlockState::Undefined);
        let last = (0, log_entry(u64::MAX, 0, FILE, &[bat_sector(3, 1)]));
        let wrapped = (2, log_entry(1, 0, FILE, &[bat_sector(3, 2)]));
        assert_eq!(state(&dirty(&[last, wrapped]), 3), BlockState::Undefined);
    }

    #[test]
    fn without_a_complete_sequence_the_file_is_refused() {
        dirty(&[]).refused(ErrorKind::Corrupt, "no complete sequence");
        dirty(&[(0, log_entry(1, 7, FILE, &[]))]).refused(ErrorKind::Corrupt, "no complete sequence");
    }

    #[test]
    fn a_clean_file_does_not_look_at_its_log() {
        let mut image = TestImage::dynamic();
        image.log(0, &log_entry(1, 0, (7 << 20, 6 << 20), &[bat_sector(3, 1)]));
        assert_eq!(state(&image, 3), BlockState::NotPresent);
    }

    #[test]
    fn a_file_that_was_cut_off_is_refused() {
        let image = dirty(&[(0, log_entry(1, 0, (7 << 20, 7 << 20), &[bat_sector(3, 1)]))]);
        image.refused(ErrorKind::Corrupt, "cut off");
        // The size of an older entry does not count: the file may have been shrunk since.
        let image = dirty(&[
            (0, log_entry(1, 0, (7 << 20, 7 << 20), &[bat_sector(3, 1)])),
            (2, log_entry(2, 0, FILE, &[])),
        ]);
        assert_eq!(state(&image, 3), BlockState::Undefined);
    }

    #[test]
    fn an_absurd_growth_is_refused() {
        let image = dirty(&[(0, log_entry(1, 0, (6 << 20, 1 << 60), &[]))]);
        image.refused(ErrorKind::LimitExceeded, "larger than any VHDX");
        let image = dirty(&[(0, log_entry(1, 0, FILE, &[Desc::Zero(4 << 20, 1 << 60)]))]);
        image.refused(ErrorKind::LimitExceeded, "larger than any VHDX");
    }

    #[test]
    fn a_log_that_is_too_long_is_refused_only_where_it_must_be_replayed() {
        let mut image = TestImage::dynamic();
        image.bytes.resize(80 * MB, 0);
        for at in [HEADER_1, HEADER_1 * 2] {
            image.put32(at + 68, 65 << 20);
            image.put64(at + 72, 10 << 20);
        }
        image.seal();
        image.open().unwrap();
        image.dirty();
        image.refused(ErrorKind::LimitExceeded, "log that must be replayed is too long");
        for at in [HEADER_1, HEADER_1 * 2] {
            image.put32(at + 68, 64 << 20);
        }
        image.seal();
        image.refused(ErrorKind::Corrupt, "no complete sequence");
    }
}
