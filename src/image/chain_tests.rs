//! Every way in which files may be, or may not be, a chain.

use proptest::prelude::*;

use super::*;
use crate::image::testing::{self, Layer, image, time};
use crate::image::{Disk, DiskType, Format};
use crate::io::read_vec;

const FORMATS: [Format; 2] = [Format::Vhd, Format::Vhdx];

fn layer(format: Format) -> Layer {
    match format {
        Format::Vhd => Layer::new(16 << 10, 8 << 10, 512),
        Format::Vhdx => Layer::new(2 << 20, 1 << 20, 512),
    }
}

fn bytes(format: Format, id: u8, parent: Option<u8>) -> Vec<u8> {
    testing::file(format, &layer(format).full(0, id), id, parent)
}

fn candidate(name: &str, bytes: &[u8]) -> Candidate {
    Candidate { image: image(bytes), name: name.into(), modified: None }
}

fn believed(child: Image, candidates: Vec<Candidate>) -> Result<Chain> {
    assemble(child, candidates, ParentTrust::default())
}

/// The child is image 1; candidates are (id, parent).
fn chain(format: Format, parent: u8, candidates: &[(u8, Option<u8>)]) -> Result<Chain> {
    let given =
        candidates.iter().map(|(id, parent)| candidate(&format!("file{id}"), &bytes(format, *id, *parent)));
    believed(image(&bytes(format, 1, Some(parent))), given.collect())
}

#[track_caller]
fn refusal(result: Result<Chain>, kind: ErrorKind, parts: &[&str]) {
    let error = match result {
        Ok(_) => panic!("this was to be refused"),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(
        error.kind() == kind && parts.iter().all(|part| text.contains(part)),
        "{kind:?} {parts:?}: {text}"
    );
}

#[test]
fn parents_are_found_by_identifier_in_any_order() {
    for format in FORMATS {
        let chain = chain(format, 2, &[(4, None), (2, Some(3)), (3, Some(4))]).unwrap();
        assert_eq!(chain.files, [0, 2, 3, 1]);
        let first = |layer: &Image| read_vec(&layer.container, 0, 8).unwrap();
        assert_eq!(chain.layers.len(), 4);
        assert!(chain.layers.iter().all(|layer| layer.format == format && !first(layer).is_empty()));
        let disk = Disk::of_layers(chain.layers).unwrap();
        assert!(disk.is_complete() && disk.missing_parent().is_none());
    }
}

#[test]
fn a_name_is_not_an_identifier() {
    for format in FORMATS {
        let name = format!("parent2.{}", format.name());
        let stranger = candidate(&name, &bytes(format, 9, None));
        let child = image(&bytes(format, 1, Some(2)));
        refusal(
            believed(child, vec![stranger]),
            ErrorKind::NeedsParent,
            &[
                "the parent of this differencing disk",
                "has the name and another identifier",
                "-000000000002",
                "-000000000009",
            ],
        );
    }
}

#[test]
fn what_is_missing_is_told_by_name_and_path() {
    let last_known =
        |format: Format| format!("“parent2.{0}” (last known as “C:\\vm\\parent2.{0}”)", format.name());
    for format in FORMATS {
        refusal(chain(format, 2, &[(7, None)]), ErrorKind::NeedsParent, &[&last_known(format), "(file7)"]);
        // The one in the middle: the grandparent does not stand in for it.
        refusal(chain(format, 2, &[(3, None)]), ErrorKind::NeedsParent, &[&last_known(format)]);
        let missing = chain(format, 2, &[]).unwrap();
        let disk = Disk::of_layers(missing.layers).unwrap();
        assert_eq!(disk.missing_parent().unwrap().describe(), last_known(format));
    }
}

#[test]
fn a_chain_may_end_early() {
    for format in FORMATS {
        let chain = chain(format, 2, &[(2, Some(3))]).unwrap();
        assert_eq!(chain.files, [0, 1]);
        let disk = Disk::of_layers(chain.layers).unwrap();
        assert!(!disk.is_complete());
        assert_eq!(disk.missing_parent().unwrap().ids, [testing::identity(3)]);
    }
    // The wrong one for the end of it is named as such.
    refusal(
        chain(Format::Vhd, 2, &[(2, Some(3)), (5, None)]),
        ErrorKind::NeedsParent,
        &["the parent of file2, “parent3.vhd”", "(file5)"],
    );
}

#[test]
fn circles_are_refused() {
    for format in FORMATS {
        for candidates in [&[][..], &[(1, Some(1))]] {
            refusal(chain(format, 1, candidates), ErrorKind::Corrupt, &["runs in a circle"]);
        }
        refusal(chain(format, 2, &[(2, Some(1))]), ErrorKind::Corrupt, &["runs in a circle"]);
        refusal(chain(format, 2, &[(3, Some(2)), (2, Some(3))]), ErrorKind::Corrupt, &["runs in a circle"]);
    }
}

#[test]
fn a_chain_has_an_end() {
    let long: Vec<(u8, Option<u8>)> = (2..70).map(|id| (id, Some(id + 1))).collect();
    refusal(chain(Format::Vhd, 2, &long), ErrorKind::LimitExceeded, &["too long", "64"]);
    let long: Vec<(u8, Option<u8>)> = (2..65).map(|id| (id, Some(id + 1).filter(|&id| id < 65))).collect();
    assert_eq!(chain(Format::Vhd, 2, &long).unwrap().layers.len(), 64);
}

#[test]
fn files_that_are_nobodys_parent_are_refused_by_name() {
    for format in FORMATS {
        refusal(
            chain(format, 2, &[(2, None), (8, None)]),
            ErrorKind::InvalidArgument,
            &["file8 is no parent of this image"],
        );
        let alone = believed(image(&bytes(format, 1, None)), vec![candidate("x", &bytes(format, 2, None))]);
        refusal(alone, ErrorKind::InvalidArgument, &["x is no parent"]);
    }
}

#[test]
fn two_files_with_one_identifier_are_a_question() {
    for format in FORMATS {
        refusal(
            chain(format, 2, &[(2, None), (2, Some(3)), (3, None)]),
            ErrorKind::InvalidArgument,
            &["file2 and file2 both have the identifier", "give only the one"],
        );
    }
}

#[test]
fn the_formats_do_not_mix() {
    for (format, other) in [(Format::Vhd, Format::Vhdx), (Format::Vhdx, Format::Vhd)] {
        // With another identifier, as converters leave it, and with the same.
        for id in [2, 6] {
            let child = image(&bytes(format, 1, Some(2)));
            let kind = if id == 2 { ErrorKind::Unsupported } else { ErrorKind::NeedsParent };
            let title = format!("is a {}", other.title());
            refusal(
                believed(child, vec![candidate("other", &bytes(other, id, None))]),
                kind,
                &["other", &title],
            );
        }
    }
}

#[test]
fn a_nil_identifier_never_matches() {
    let nil = |id: u8, parent| {
        let mut bytes = bytes(Format::Vhd, id, parent);
        let end = bytes.len() - 512;
        for at in [0, end] {
            bytes[at + 68..at + 84].fill(0);
            testing::seal(&mut bytes[at..at + 512], 64);
        }
        bytes
    };
    let mut child = nil(1, Some(2));
    child[512 + 40..512 + 56].fill(0);
    testing::seal(&mut child[512..1536], 36);
    assert!(believed(image(&child), vec![]).is_ok());
    let parents = vec![candidate("parent2.vhd", &nil(2, None))];
    refusal(believed(image(&child), parents), ErrorKind::NeedsParent, &["not among"]);
}

/// A VHD chain whose child notes `expected` as its parent's time.
fn timed(expected: u32, creator: [u8; 4], modified: Option<u32>) -> Result<Chain> {
    timed_by(expected, creator, modified, ParentTrust::default())
}

fn timed_by(expected: u32, creator: [u8; 4], modified: Option<u32>, trust: ParentTrust) -> Result<Chain> {
    let mut child = bytes(Format::Vhd, 1, Some(2));
    let end = child.len() - 512;
    for at in [0, end] {
        child[at + 28..at + 32].copy_from_slice(&creator);
        testing::seal(&mut child[at..at + 512], 64);
    }
    child[512 + 56..512 + 60].copy_from_slice(&expected.to_be_bytes());
    testing::seal(&mut child[512..1536], 36);
    let parent = Candidate { modified, ..candidate("parent2.vhd", &bytes(Format::Vhd, 2, None)) };
    assemble(image(&child), vec![parent], trust)
}

#[test]
fn a_vhd_parent_that_was_changed_is_refused() {
    let win = *b"win ";
    let stale = ["parent2.vhd has the right identifier and another time", "expected 2000-01-01 00:00:05 UTC"];
    refusal(timed(5, win, None), ErrorKind::ParentChanged, &stale);
    refusal(
        timed(5, win, Some(8)),
        ErrorKind::ParentChanged,
        &[stale[0], stale[1], "and 2000-01-01 00:00:08 UTC"],
    );
    refusal(timed(5, win, Some(2)), ErrorKind::ParentChanged, &stale);
    // The footer's own time, the file's as coarse as file systems keep it, and no time at all.
    for (expected, modified) in [
        (time(2), None),
        (time(2), Some(1)),
        (5, Some(5)),
        (5, Some(7)),
        (5, Some(3)),
        (0, None),
        (0, Some(9)),
    ] {
        assert!(timed(expected, win, modified).unwrap().warnings.is_empty());
    }
}

#[test]
fn a_parent_may_be_trusted_by_its_identifier_alone() {
    let trust = ParentTrust::Identifier;
    let chain = timed_by(5, *b"win ", Some(99), trust).unwrap();
    assert_eq!((chain.layers.len(), chain.warnings.len()), (2, 1));
    let warning = &chain.warnings[0];
    assert_eq!(warning.code, "parent-trusted");
    assert!(warning.message.contains("parent2.vhd") && warning.message.contains("damaged"), "{warning:?}");
    // Nothing is said where there is no need to trust.
    assert!(timed_by(time(2), *b"win ", None, trust).unwrap().warnings.is_empty());
    // Another identifier is never trusted.
    for format in FORMATS {
        let given = vec![candidate("parent2.vhd", &bytes(format, 9, None))];
        let chain = assemble(image(&bytes(format, 1, Some(2))), given, trust);
        refusal(chain, ErrorKind::NeedsParent, &["is not among the files given"]);
    }
}

#[test]
fn times_are_told_as_dates() {
    for (seconds, expected) in [
        (0, "2000-01-01 00:00:00 UTC"),
        (59 * 86_400 + 86_399, "2000-02-29 23:59:59 UTC"),
        (366 * 86_400, "2001-01-01 00:00:00 UTC"),
        (820_454_400 + 61, "2025-12-31 00:01:01 UTC"),
        (u32::MAX, "2136-02-07 06:28:15 UTC"),
    ] {
        assert_eq!(utc(seconds), expected);
    }
}

#[test]
fn a_raw_parent_can_be_told_and_not_given() {
    let mut child = bytes(Format::Vhd, 1, Some(2));
    let end = child.len() - 512;
    for at in [0, end] {
        child[at + 28..at + 32].copy_from_slice(b"tap\0");
        testing::seal(&mut child[at..at + 512], 64);
    }
    child[512 + 40..512 + 56].fill(0);
    testing::seal(&mut child[512..1536], 36);
    assert!(image(&child).parent.unwrap().is_raw);
    let alone = believed(image(&child), vec![]).unwrap();
    assert_eq!(alone.layers.len(), 1);
    for id in [2, 3] {
        let given = vec![candidate("parent2.vhd", &bytes(Format::Vhd, id, None))];
        refusal(believed(image(&child), given), ErrorKind::Unsupported, &["raw disk", "parent2.vhd"]);
    }
}

#[test]
fn xenserver_keeps_no_time_of_the_parent() {
    let chain = timed(5, *b"tap\0", Some(99)).unwrap();
    assert_eq!(chain.layers.len(), 2);
    assert_eq!(chain.warnings.iter().map(|w| w.code).collect::<Vec<_>>(), ["parent-time-differs"]);
}

#[test]
fn either_linkage_of_a_vhdx_will_do_and_a_new_data_write_guid_is_another_disk() {
    use crate::image::vhdx::testing::TestImage;
    let mut child = TestImage { bytes: bytes(Format::Vhdx, 1, Some(2)) };
    let (one, two) = (testing::identity(4).braced().to_string(), testing::identity(2).braced().to_string());
    child.set_locator(&[("parent_linkage", one.as_str()), ("parent_linkage2", two.as_str())]);
    for id in [2, 4] {
        let parent = candidate("parent", &bytes(Format::Vhdx, id, None));
        assert_eq!(believed(child.open().unwrap(), vec![parent]).unwrap().files, [0, 1]);
    }
    let both = [2, 4].map(|id| candidate(&format!("p{id}"), &bytes(Format::Vhdx, id, None)));
    let both = believed(child.open().unwrap(), both.into());
    refusal(both, ErrorKind::InvalidArgument, &["p2", "p4", "give only the one"]);
    // Whatever is written to a parent gives it a new GUID, and the old linkage no longer fits.
    let written = candidate("parent2.vhdx", &bytes(Format::Vhdx, 3, None));
    refusal(believed(child.open().unwrap(), vec![written]), ErrorKind::NeedsParent, &["parent2.vhdx"]);
}

#[test]
fn a_parent_may_be_fixed() {
    let mut fixed = vec![7; 16 << 10];
    let mut footer = bytes(Format::Vhd, 2, None)[..512].to_vec();
    footer[16..24].fill(0xff);
    footer[60..64].copy_from_slice(&2u32.to_be_bytes());
    testing::seal(&mut footer, 64);
    fixed.extend(footer);
    let chain = believed(image(&bytes(Format::Vhd, 1, Some(2))), vec![candidate("fixed", &fixed)]).unwrap();
    assert_eq!(chain.layers[1].disk_type, DiskType::Fixed);
    let disk = Disk::of_layers(chain.layers).unwrap();
    assert_eq!(read_vec(&disk, 8 << 10, 512).unwrap(), [7; 512]);
}

#[test]
fn a_link_is_described_for_a_person() {
    let link = |paths: &[&str]| {
        let paths = paths.iter().map(|path| String::from(*path)).collect();
        ParentLink { ids: vec![], time_stamp: None, paths, is_raw: false }.describe()
    };
    assert_eq!(link(&[]), "whose name is not known");
    assert_eq!(link(&["", " \u{7}"]), "whose name is not known");
    assert_eq!(link(&["base.vhd"]), "“base.vhd”");
    assert_eq!(link(&[".\\base.vhd", "C:\\vm\\base.vhd"]), "“base.vhd” (last known as “C:\\vm\\base.vhd”)");
    let volume = "\\\\?\\Volume{9cdf8dfa-0000-0000-0000-501f00000000}\\vm\\base.vhdx";
    assert_eq!(link(&[volume, "D:\\base.vhdx"]), "“base.vhdx” (last known as “D:\\base.vhdx”)");
    assert_eq!(link(&[volume]), format!("“base.vhdx” (last known as “{volume}”)"));
    assert_eq!(
        link(&["/var/run/sr-mount/x/base.vhd"]),
        "“base.vhd” (last known as “/var/run/sr-mount/x/base.vhd”)"
    );
    assert_eq!(link(&["a\u{1b}[31mb\n.vhd"]), "“a[31mb.vhd”");
    assert!(link(&[&"x".repeat(5000)]).len() < 300);
}

#[test]
fn paths_are_read_from_every_locator_of_a_vhd() {
    let mut child = bytes(Format::Vhd, 1, Some(2));
    // A Macintosh file URL instead of the first locator.
    let url = b"file://localhost/Users/me/My%20disks/P%C3%A4ter.vhd\0";
    child[512 + 576..][..4].copy_from_slice(b"MacX");
    child[512 + 584..][..4].copy_from_slice(&(url.len() as u32).to_be_bytes());
    child[1536..][..url.len()].copy_from_slice(url);
    testing::seal(&mut child[512..1536], 36);
    let link = image(&child).parent.unwrap();
    assert_eq!(link.paths, ["/Users/me/My disks/Päter.vhd", "C:\\vm\\parent2.vhd", "parent2.vhd"]);
    assert_eq!((link.ids.as_slice(), link.time_stamp), ([testing::identity(2)].as_slice(), Some(time(2))));
}

proptest! {
    /// Whoever names whom: a chain, or a refusal, and never one without end.
    #[test]
    fn any_set_of_links_ends(links in proptest::collection::vec(proptest::option::of(1u8..8), 1..7), parent in 1u8..8) {
        let candidates: Vec<(u8, Option<u8>)> =
            links.iter().zip(2..).map(|(parent, id)| (id, *parent)).collect();
        if let Ok(chain) = chain(Format::Vhd, parent, &candidates) {
            for pair in chain.layers.windows(2) {
                prop_assert!(pair[0].parent.as_ref().unwrap().ids.contains(&pair[1].identity));
            }
        }
    }
}

#[test]
fn a_parent_with_sectors_of_another_size_is_refused() {
    let parent = testing::file(Format::Vhdx, &Layer::new(4 << 20, 1 << 20, 4096), 2, None);
    let given = vec![candidate("parent.vhdx", &parent)];
    let error = believed(image(&bytes(Format::Vhdx, 1, Some(2))), given).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("parent.vhdx"), "{error}");
}
