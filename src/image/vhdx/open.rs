//! Reading a VHDX: identifier and current header, log, regions, metadata, BAT, in this order.
//!
//! ```text
//!   header ─► log, replayed in memory ─► region table ─► metadata ─► BAT ─► block table
//!             └ everything to the right is read through it
//! ```

use std::rc::Rc;

use uuid::Uuid;

use super::bat::read_bat;
use super::headers::{read_creator, read_header, read_regions};
use super::locator::Locator;
use super::log;
use super::metadata::{DiskMetadata, Item, read_metadata};
use super::space::{Conflict, FileSpace};
use crate::error::{Error, Result, Site, Warning};
use crate::image::{Container, DiskType, Format, Geometry, Image, Metadata as AnyMetadata};
use crate::io::ReadAt;
use crate::units::Space;

/// What a writer carries over from a VHDX.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// Identifies the file's contents; a new file has a new one.
    pub file_write_guid: Uuid,
    /// Identifies the virtual disk's contents; changes if any read does.
    pub data_write_guid: Uuid,
    /// The disk's identity on its bus (SCSI page 83).
    pub virtual_disk_id: Uuid,
    /// The mark of a fixed disk.
    pub leave_block_allocated: bool,
    /// The parent locator of a differencing disk.
    pub locator: Option<Locator>,
    /// User items and items that say nothing of the layout, as they are.
    pub items: Vec<Item>,
}

/// Opens a VHDX.
///
/// # Errors
/// `corrupt`, `unsupported` or `limit-exceeded` with the site of what is wrong; read errors.
pub fn open(file: Rc<dyn ReadAt>) -> Result<Image> {
    let mut warnings = Vec::new();
    let creator = read_creator(&file)?;
    let header = read_header(&file, &mut warnings)?;
    let container = match header.log_guid {
        None => Container::new(file),
        Some(guid) => {
            let (overlay, entries) = log::replay(file, header.log.clone(), guid)?;
            warnings.push(Warning::new(
                "log-replayed",
                format!(
                    "This disk was not closed cleanly, or a program is using it right now: {entries} entries of its \
                     log were replayed in memory. The file itself was not touched; a new image needs no replay."
                ),
            ));
            Container::replayed(overlay)
        }
    };
    let mut space = FileSpace::new(container.size())?;
    if let Err(conflict) = space.claim_structure("the log", header.log.clone()) {
        return Err(log_conflict(conflict, header.log.start));
    }
    let regions = read_regions(&container, &mut space, &mut warnings)?;
    let disk = read_metadata(&container, &regions.metadata)?;
    let (blocks, bitmaps) = read_bat(&container, &regions.bat, &disk, &mut space, &mut warnings)?;
    Ok(Image {
        format: Format::Vhdx,
        disk_type: disk_type(&disk),
        geometry: Geometry {
            virtual_size: disk.virtual_size,
            addressable_size: disk.virtual_size,
            block_size: disk.block_size,
            logical_sector_size: disk.logical_sector_size,
            physical_sector_size: disk.physical_sector_size,
        },
        container,
        blocks,
        bitmaps,
        identity: header.data_write_guid,
        creator,
        parent: disk.locator.as_ref().map(Locator::link),
        metadata: AnyMetadata::Vhdx(Box::new(Metadata {
            file_write_guid: header.file_write_guid,
            data_write_guid: header.data_write_guid,
            virtual_disk_id: disk.virtual_disk_id,
            leave_block_allocated: disk.leave_block_allocated,
            locator: disk.locator,
            items: disk.others,
        })),
        warnings,
    })
}

fn disk_type(disk: &DiskMetadata) -> DiskType {
    match (disk.has_parent, disk.leave_block_allocated) {
        (true, _) => DiskType::Differencing,
        (false, true) => DiskType::Fixed,
        (false, false) => DiskType::Dynamic,
    }
}

/// The header was checked to place the log inside the file and behind the header section.
fn log_conflict(conflict: Conflict, at: u64) -> Error {
    let site = Site { structure: "VHDX header", space: Space::File, offset: at };
    Error::corrupt(site, format!("the log lies where it cannot ({conflict:?})"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        BAT, Desc, HEADER_1, HEADER_2, LOG, METADATA, REGIONS_1, REGIONS_2, TestImage, log_entry, seal_entry,
    };
    use crate::image::{BlockState, Disk};
    use crate::io::{ReadAt, read_vec};
    use proptest::prelude::*;
    use std::rc::Rc;

    #[test]
    fn the_image_is_told_as_it_is() {
        let image = TestImage::dynamic().open().unwrap();
        assert_eq!(image.creator, "test image");
        assert_eq!(image.blocks.get(1), BlockState::Zero);
        assert_eq!((image.blocks.present(), image.blocks.partially_present()), (2, 0));
        assert!(image.parent.is_none() && image.warnings.is_empty());
        let child = TestImage::differencing().open().unwrap();
        assert_eq!((child.blocks.present(), child.blocks.partially_present()), (1, 1));
    }

    #[test]
    fn a_chain_reads_through() {
        let chain = [TestImage::differencing(), TestImage::dynamic()].map(|i| Rc::new(i.open().unwrap()));
        let disk = Disk::of_layers(chain.to_vec()).unwrap();
        let sector = |n: u64| read_vec(&disk, n * 512, 1).unwrap()[0];
        // Both hold 0xa0 in block 0; what differs is where it comes from.
        assert_eq!(
            [sector(0), sector(1), sector(2048), sector(4096), sector(6144)],
            [0xa0, 0xa0, 0, 0xa2, 0]
        );
        let segments = disk.segments(0..2048).unwrap();
        assert_eq!(segments.len(), 4);
    }

    /// Places that a reader looks at, with how many bytes of each.
    const PLACES: [(usize, usize); 9] = [
        (0, 600),
        (HEADER_1, 96),
        (HEADER_2, 96),
        (REGIONS_1, 16 + 64),
        (REGIONS_2, 16 + 64),
        (LOG, 3 * 4096),
        (METADATA, 32 + 6 * 32),
        (METADATA + (64 << 10), 400),
        (BAT, 64),
    ];

    fn subject(kind: u8) -> TestImage {
        let mut image = if kind.is_multiple_of(2) { TestImage::dynamic() } else { TestImage::differencing() };
        let size = image.bytes.len() as u64;
        let bat = image.bytes[BAT..BAT + 4096].to_vec().try_into().unwrap();
        image.log(
            0,
            &log_entry(3, 0, (size, size), &[Desc::Data(BAT as u64, bat), Desc::Zero(BAT as u64 + 8, 0)]),
        );
        if kind >= 2 {
            image.dirty();
        }
        image
    }

    fn interesting() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            (0u32..64).prop_map(|bit| 1 << bit),
            (0u32..64).prop_map(|bit| u64::MAX << bit),
            0u64..16,
            (0u64..16, 0u64..16).prop_map(|(mib, low)| mib << 20 | low),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn corruption_neither_panics_nor_runs_away(
            kind in 0u8..4,
            changes in proptest::collection::vec((0..PLACES.len(), 0usize..20_000, 1usize..9, interesting()), 1..5),
            sealed in any::<bool>(),
        ) {
            let mut image = subject(kind);
            for (place, by, len, value) in changes {
                let (start, within) = PLACES[place];
                let at = start + by % within;
                image.put(at, &value.to_le_bytes()[..len]);
            }
            if sealed {
                image.seal();
                let mut entry = image.bytes[LOG..LOG + 8192].to_vec();
                seal_entry(&mut entry);
                image.log(0, &entry);
            }
            if let Ok(opened) = image.open() {
                // Whatever opens can be read, or says why not; it never lies outside itself.
                let disk = Disk::of_layers(vec![Rc::new(opened)]).unwrap();
                for start in [0, 1 << 20, disk.size().max(4096) - 4096] {
                    let len = crate::units::length(&(start..disk.size())).min(2 << 20);
                    let mut buf = vec![0; usize::try_from(len).unwrap()];
                    let _ = disk.read_exact_at(start, &mut buf);
                }
            }
        }

        #[test]
        fn truncation_is_noticed(kind in 0u8..4, cut in 1usize..7 << 20) {
            let mut image = subject(kind);
            let len = image.bytes.len() - cut.min(image.bytes.len());
            image.bytes.truncate(len);
            prop_assert!(image.open().is_err());
        }
    }
}
