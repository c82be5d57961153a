//! Linux swap: worthless while the machine is off, except when it holds a hibernated machine.
//!
//! ```text
//!   page 0                                                    page 1 … last_page
//!   │ boot bits │ version, last_page, UUID, label │ … │ SWAPSPACE2 │ swapped-out memory │
//!   0           1024                                  page − 10
//! ```
//! The page size is the machine's, 4 to 64 KiB, and the signature's place tells it. While the machine
//! is hibernated another signature stands there. The first page stays whatever a person asks: without
//! it the system does not find its swap.
//!
//! Source: `union swap_header` in Linux `include/linux/swap.h`, `mkswap(8)`; the hibernation signatures
//! of `kernel/power/swap.c`, uswsusp and `TuxOnIce`.

use zerocopy::byteorder::{LE, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::witness::{HeaderAlone, OwnerWalk};
use super::{Context, Decline, DeclineReason, Detected, FreeMap, Request, Stop};
use crate::error::{Result, Site};
use crate::extents::Extents;
use crate::io::{ReadAt, read_struct};
use crate::units::{Space, add, mul};
use crate::volume::signature::{Swap, swap_area};

const HEADER: Site = Site { structure: "Linux swap header", space: Space::Volume, offset: 1024 };

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    version: U32<LE>,
    last_page: U32<LE>,
    _bad_pages: U32<LE>,
    _uuid: [u8; 16],
    label: [u8; 16],
}

/// Recognises a swap volume and says what of it a person may declare dispensable.
pub(super) fn probe(volume: &dyn ReadAt, _context: Context) -> Option<Detected> {
    let area = swap_area(volume).ok()??;
    let header: RawHeader = read_struct(volume, HEADER.offset).ok()?;
    let label = header.label.split(|&byte| byte == 0).next().filter(|label| !label.is_empty());
    let label = label.map(|label| String::from_utf8_lossy(label).into_owned());
    let outcome = map(volume, area, &header).map(|map| (map, HeaderAlone(area.page()).boxed()));
    Some(Detected::new("Linux swap", label, outcome, Vec::new()))
}

fn map(volume: &dyn ReadAt, area: Swap, header: &RawHeader) -> Result<FreeMap, Stop> {
    let page = match area {
        Swap::Current { page } => page,
        Swap::Old { .. } => {
            let detail = "The swap area is of the old kind of Linux before 2.2, which is not understood.";
            return Err(Decline::new(DeclineReason::NotSupported, detail).at(HEADER).into());
        }
        Swap::Hibernated { .. } => {
            let detail = "The machine is hibernated and its memory is in this swap area. Start it, shut it \
                          down completely, and try again.";
            return Err(Decline::new(DeclineReason::Hibernated, detail).at(HEADER).into());
        }
    };
    if header.version.get() != 1 {
        let detail = format!(
            "The swap area has version {}, and only version 1 in little-endian order is understood.",
            header.version.get()
        );
        return Err(Decline::new(DeclineReason::UnknownFeature, detail).at(HEADER).into());
    }
    let end = mul(add(header.last_page.get().into(), 1, "the swap pages")?, page, "the swap area")?;
    if header.last_page.get() == 0 || end > volume.size() {
        let detail = "The swap area says that it is larger than its volume, so its header is not believed.";
        return Err(Decline::new(DeclineReason::Inconsistent, detail).at(HEADER).into());
    }
    let mut pages = Extents::new();
    pages.push(page..end);
    Ok(FreeMap {
        spans: end,
        used_bytes: end,
        on_request: vec![(Request::PageFiles, pages)],
        ..FreeMap::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Mapping;
    use proptest::prelude::*;

    const CONTEXT: Context = Context { sector_size: 512 };

    fn swap(page: usize, pages: u32) -> Vec<u8> {
        let mut bytes = vec![0xA5; page * (usize::try_from(pages).unwrap() + 1) + 700];
        bytes[1024..1028].copy_from_slice(&1u32.to_le_bytes());
        bytes[1028..1032].copy_from_slice(&pages.to_le_bytes());
        bytes[1052..1068].copy_from_slice(b"my swap\0\0\0\0\0\0\0\0\0");
        bytes[page - 10..page].copy_from_slice(b"SWAPSPACE2");
        bytes
    }

    fn reason(bytes: &dyn ReadAt) -> DeclineReason {
        match probe(bytes, CONTEXT).unwrap().mapping {
            Mapping::Declined(decline) => decline.reason,
            Mapping::Mapped(_) => panic!("mapped"),
        }
    }

    #[test]
    fn everything_after_the_header_page_is_on_request() {
        for page in [4096, 8192, 16384, 32768, 65536] {
            let found = probe(&swap(page, 3), CONTEXT).unwrap();
            assert_eq!(found.label.as_deref(), Some("my swap"));
            let Mapping::Mapped(map) = found.mapping else { panic!("declined") };
            let page = u64::try_from(page).unwrap();
            let mut pages = Extents::new();
            pages.push(page..page * 4);
            assert_eq!(map.on_request, [(Request::PageFiles, pages)]);
            assert!(map.free.is_empty());
        }
    }

    #[test]
    fn a_hibernated_machine_is_kept() {
        for signature in [
            &b"S1SUSPEND\0"[..],
            b"S2SUSPEND\0",
            b"ULSUSPEND\0",
            b"LINHIB0001",
            b"\xED\xC3\x02\xE9\x98\x56\xE5\x0C\0\0",
        ] {
            let mut bytes = swap(4096, 3);
            bytes[4086..4096].copy_from_slice(signature);
            assert_eq!(reason(&bytes), DeclineReason::Hibernated);
        }
    }

    #[test]
    fn a_hibernated_machine_of_another_page_size_is_kept() {
        let mut bytes = swap(4096, 20);
        bytes[16374..16384].copy_from_slice(b"S1SUSPEND\0");
        assert_eq!(reason(&bytes), DeclineReason::Hibernated);
    }

    #[test]
    fn a_header_that_does_not_fit_is_declined() {
        let with = |at: usize, value: u32| {
            let mut bytes = swap(4096, 3);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        assert_eq!(reason(&with(1024, 2)), DeclineReason::UnknownFeature);
        assert_eq!(reason(&with(1024, 1 << 24)), DeclineReason::UnknownFeature);
        assert_eq!(reason(&with(1028, 0)), DeclineReason::Inconsistent);
        assert_eq!(reason(&with(1028, 4)), DeclineReason::Inconsistent);
        assert_eq!(reason(&with(1028, u32::MAX)), DeclineReason::Inconsistent);
        let mut old = swap(4096, 3);
        old[4086..4096].copy_from_slice(b"SWAP-SPACE");
        assert_eq!(reason(&old), DeclineReason::NotSupported);
        old[4090] = 0;
        assert!(probe(&old, CONTEXT).is_none());
    }

    proptest! {
        #[test]
        fn corruptions_never_panic(noise in proptest::collection::vec((0usize..4096, any::<u8>()), 0..8)) {
            let mut bytes = swap(4096, 3);
            for (at, byte) in noise {
                bytes[at] = byte;
            }
            if let Some(Detected { mapping: Mapping::Mapped(map), .. }) = probe(&bytes, CONTEXT) {
                let (_, pages) = &map.on_request[0];
                prop_assert!(map.free.is_empty() && !pages.intersects(0..4096));
                prop_assert!(!pages.intersects(u64::try_from(bytes.len()).unwrap()..u64::MAX));
            }
        }
    }
}
