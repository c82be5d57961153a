//! What each program demands of an image that it shall take back, as rules over the bytes of the file.
//!
//! ```text
//!   rules of the format     VHD: specification 1.0       VHDX: [MS-VHDX], as openvmm's reader takes it
//!   rules of a program      XenServer: the batmap, blocks of 2 MiB, the size of the table
//! ```
//! Written from the specifications and from the programs' behaviour. It knows nothing of who wrote the image.

use std::fs;
use std::io::Result;
use std::ops::Range;
use std::path::Path;

use crc::{CRC_32_ISCSI, Crc};
use uuid::{Uuid, uuid};

const SECTOR: u64 = 512;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const UNUSED: u64 = u32::MAX as u64;
const BAT_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");

/// The rules that an image breaks, in words; none where the program of its creator takes it.
///
/// # Errors
/// If the file cannot be read.
pub fn broken_rules(image: &Path) -> Result<Vec<String>> {
    let file = File(fs::read(image)?);
    let mut rules = Rules(Vec::new());
    if file.bytes(0, 8) == b"vhdxfile" {
        vhdx(&file, &mut rules);
    } else {
        vhd(&file, &mut rules);
    }
    Ok(rules.0)
}

struct Rules(Vec<String>);

impl Rules {
    fn hold(&mut self, holds: bool, rule: &str) {
        if !holds {
            self.0.push(rule.to_owned());
        }
    }
}

struct File(Vec<u8>);

impl File {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// These bytes; past the end of the file there are none.
    fn bytes(&self, at: u64, len: u64) -> &[u8] {
        let end = self.len();
        &self.0[at.min(end) as usize..at.saturating_add(len).min(end) as usize]
    }

    fn big(&self, at: u64, len: u64) -> u64 {
        self.bytes(at, len).iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    fn little(&self, at: u64, len: u64) -> u64 {
        self.bytes(at, len).iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    fn guid(&self, at: u64) -> Uuid {
        self.bytes(at, 16).try_into().map_or(Uuid::nil(), Uuid::from_bytes_le)
    }
}

/// One's complement of the sum of all bytes, those of the checksum itself left out.
fn sum_is_right(bytes: &[u8], at: usize) -> bool {
    let sum = |part: &[u8]| part.iter().fold(0u32, |sum, &byte| sum.wrapping_add(byte.into()));
    let Some(found) = bytes.get(at..at + 4) else { return false };
    (!sum(&bytes[..at]).wrapping_add(sum(&bytes[at + 4..]))).to_be_bytes() == *found
}

fn vhd(file: &File, rules: &mut Rules) {
    let footer_at = file.len().saturating_sub(SECTOR);
    let footer = file.bytes(footer_at, SECTOR);
    rules.hold(file.len().is_multiple_of(SECTOR), "the file is whole sectors");
    rules.hold(footer.starts_with(b"conectix"), "a footer stands in the last sector");
    rules.hold(sum_is_right(footer, 64), "the footer's checksum is right");
    rules.hold(file.big(footer_at + 12, 4) == 0x0001_0000, "the footer is of version 1.0");
    let size = file.big(footer_at + 48, 8);
    rules.hold(size.is_multiple_of(SECTOR) && size > 0, "the disk is whole sectors");
    let disk_type = file.big(footer_at + 60, 4);
    if disk_type == 2 {
        rules.hold(file.big(footer_at + 16, 8) == u64::MAX, "a fixed disk has no header");
        rules.hold(footer_at == size.max(geometry(file, footer_at)), "a fixed file is payload and footer");
        return;
    }
    rules.hold(matches!(disk_type, 3 | 4), "the disk is fixed, dynamic or differencing");
    rules.hold(file.bytes(0, SECTOR) == footer, "the footer's copy stands in the first sector");
    let header = file.big(footer_at + 16, 8);
    rules.hold(file.bytes(header, 8) == b"cxsparse", "the dynamic header is where the footer says");
    rules.hold(sum_is_right(file.bytes(header, 2 * SECTOR), 36), "the dynamic header's checksum is right");
    rules.hold(file.big(header + 8, 8) == u64::MAX, "the header's data offset is all ones");
    rules.hold(file.big(header + 24, 4) == 0x0001_0000, "the header is of version 1.0");
    let (table, entries) = (file.big(header + 16, 8), file.big(header + 28, 4));
    let block = file.big(header + 32, 4);
    rules.hold(block.is_power_of_two() && block >= SECTOR, "a block is a power of two of sectors");
    let blocks = size.max(geometry(file, footer_at)).div_ceil(block.max(SECTOR));
    rules.hold(entries >= blocks, "the table covers the disk");
    rules.hold(table.is_multiple_of(SECTOR), "the table stands on a sector");
    let table_end = (table + 4 * entries).next_multiple_of(SECTOR);
    let padding = file.bytes(table + 4 * entries, table_end - table - 4 * entries);
    rules.hold(padding.iter().all(|&byte| byte == 0xFF), "the table's padding is all ones");
    let bitmap = (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
    let mut places = vec![0..SECTOR, header..header + 2 * SECTOR, table..table_end, footer_at..file.len()];
    for (number, entry) in (0..entries).map(|number| (number, file.big(table + 4 * number, 4))) {
        if entry != UNUSED {
            rules.hold(number < blocks, "no block lies past the end of the disk");
            let start = entry * SECTOR;
            places.push(start..start + bitmap + block);
        }
    }
    if disk_type == 4 {
        locators(file, header, rules, &mut places);
    }
    if is_xenserver(file, footer_at) {
        rules.hold(block == 2 * MIB, "XenServer: blocks of 2 MiB");
        batmap(file, table, entries, bitmap, block, table_end, rules, &mut places);
    }
    apart(places, file.len(), rules);
}

/// Bytes of the disk by its cylinders, heads and sectors.
fn geometry(file: &File, footer: u64) -> u64 {
    file.big(footer + 56, 2) * file.big(footer + 58, 1) * file.big(footer + 59, 1) * SECTOR
}

fn is_xenserver(file: &File, footer: u64) -> bool {
    file.bytes(footer + 28, 4) == b"tap\0" && file.big(footer + 32, 4) >= 0x0001_0002
}

/// Each parent locator in use lies where the header says, and one of a known platform is there.
fn locators(file: &File, header: u64, rules: &mut Rules, places: &mut Vec<Range<u64>>) {
    rules.hold(file.bytes(header + 40, 16).iter().any(|&byte| byte != 0), "a child names its parent");
    let mut known = false;
    for at in (0..8).map(|n| header + 576 + 24 * n) {
        let (code, space, len, place) =
            (file.bytes(at, 4), file.big(at + 4, 4), file.big(at + 8, 4), file.big(at + 16, 8));
        if code == [0; 4] {
            continue;
        }
        known |= [b"W2ku", b"W2ru", b"MacX"].iter().any(|name| code == *name);
        // The specification counts sectors, and programs write bytes.
        let room = if space < SECTOR { space * SECTOR } else { space };
        rules.hold(len > 0 && len <= room, "a parent locator fits the room it has");
        places.push(place..place + room);
    }
    rules.hold(known, "a parent locator is of a known platform");
}

/// blktap's map of the blocks whose bitmaps are full.
#[allow(clippy::too_many_arguments, reason = "the fields of one header")]
fn batmap(
    file: &File,
    table: u64,
    entries: u64,
    bitmap: u64,
    block: u64,
    header: u64,
    rules: &mut Rules,
    places: &mut Vec<Range<u64>>,
) {
    let is_there = file.bytes(header, 8) == b"tdbatmap";
    rules.hold(is_there, "XenServer: a batmap header stands behind the table");
    if !is_there {
        return;
    }
    let (at, sectors) = (file.big(header + 8, 8), file.big(header + 16, 4));
    rules.hold(file.big(header + 20, 4) == 0x0001_0002, "XenServer: the batmap is of version 1.2");
    rules.hold(at.is_multiple_of(SECTOR) && sectors > 0, "XenServer: the batmap is whole sectors");
    rules.hold(sectors * SECTOR * 8 >= entries, "XenServer: the batmap has a bit for each entry");
    places.extend([header..header + SECTOR, at..at.saturating_add(sectors * SECTOR)]);
    for entry in 0..entries {
        let is_set = file
            .bytes(at.saturating_add(entry / 8), 1)
            .first()
            .is_some_and(|byte| byte & 0x80 >> (entry % 8) != 0);
        if is_set {
            let place = file.big(table + 4 * entry, 4);
            let bits = file.bytes(place * SECTOR, bitmap.min(block / SECTOR / 8));
            let full = place != UNUSED && bits.iter().all(|&byte| byte == 0xFF);
            rules.hold(full, "XenServer: the batmap calls no block full that is not");
        }
    }
}

/// Nothing overlaps, and nothing lies past the end.
fn apart(mut places: Vec<Range<u64>>, end: u64, rules: &mut Rules) {
    places.sort_unstable_by_key(|place| place.start);
    rules.hold(places.windows(2).all(|pair| pair[0].end <= pair[1].start), "no two structures overlap");
    rules.hold(places.iter().all(|place| place.end <= end), "nothing lies past the end of the file");
}

fn vhdx(file: &File, rules: &mut Rules) {
    rules.hold(file.len().is_multiple_of(MIB), "the file is whole MiB");
    let headers = [64 * KIB, 128 * KIB];
    for at in headers {
        rules.hold(file.bytes(at, 4) == b"head" && crc_is_right(file, at, 4 * KIB), "both headers are good");
        rules.hold(file.little(at + 48, 16) == 0, "the log is empty");
        rules.hold(file.little(at + 66, 2) == 1, "the file is of version 1");
    }
    let [a, b] = headers.map(|at| file.little(at + 8, 8));
    rules.hold(a != b, "the headers' sequence numbers differ");
    let tables = [192 * KIB, 256 * KIB];
    for at in tables {
        rules.hold(
            file.bytes(at, 4) == b"regi" && crc_is_right(file, at, 64 * KIB),
            "both region tables are good",
        );
    }
    rules.hold(
        file.bytes(tables[0], 64 * KIB) == file.bytes(tables[1], 64 * KIB),
        "the region tables are the same",
    );
    let current = if a > b { headers[0] } else { headers[1] };
    let log = file.little(current + 72, 8)..file.little(current + 72, 8) + file.little(current + 68, 4);
    let mut places = vec![0..MIB, log];
    let mut regions = [(BAT_REGION, 0..0), (METADATA_REGION, 0..0)];
    for at in (0..file.little(tables[0] + 8, 4).min(2047)).map(|n| tables[0] + 16 + 32 * n) {
        let place = file.little(at + 16, 8)..file.little(at + 16, 8) + file.little(at + 24, 4);
        match regions.iter_mut().find(|(id, _)| *id == file.guid(at)) {
            Some((_, region)) => *region = place.clone(),
            None => rules.hold(file.little(at + 28, 4) & 1 == 0, "no region is required that nobody knows"),
        }
        places.push(place);
    }
    let [(_, bat), (_, metadata)] = regions;
    rules.hold(!bat.is_empty() && !metadata.is_empty(), "there is a table and there is metadata");
    let Some(disk) = Geometry::read(file, metadata.start, rules) else { return };
    let chunk = (1 << 23) * disk.sector / disk.block.max(1);
    let blocks = disk.size.div_ceil(disk.block);
    let slots =
        if disk.is_child { blocks.div_ceil(chunk) * (chunk + 1) } else { blocks + (blocks - 1) / chunk };
    rules.hold(8 * slots <= bat.end - bat.start, "the table covers the disk");
    for slot in 0..slots {
        let entry = file.little(bat.start + 8 * slot, 8);
        let (state, place) = (entry & 7, entry & !(MIB - 1));
        rules.hold(entry & (MIB - 8) == 0, "reserved bits of the table are clear");
        let is_bitmap = slot % (chunk + 1) == chunk;
        match state {
            6 => places.push(place..place + if is_bitmap { MIB } else { disk.block }),
            7 if disk.is_child && !is_bitmap => places.push(place..place + disk.block),
            0..=3 => rules.hold(place == 0, "what is not there has no place"),
            _ => rules.hold(false, "a state is one of the specification's"),
        }
        rules.hold(!is_bitmap || disk.is_child || state == 0, "only a child has sector bitmaps");
    }
    rules.hold(places.iter().all(|place| place.start.is_multiple_of(MIB)), "everything stands on a MiB");
    apart(places, file.len(), rules);
}

struct Geometry {
    block: u64,
    size: u64,
    sector: u64,
    is_child: bool,
}

impl Geometry {
    fn read(file: &File, at: u64, rules: &mut Rules) -> Option<Self> {
        rules.hold(file.bytes(at, 8) == b"metadata", "the metadata table is where the region table says");
        let item = |wanted: Uuid| {
            let mut entries = (0..file.little(at + 10, 2).min(2047)).map(|n| at + 32 + 32 * n);
            entries.find(|&entry| file.guid(entry) == wanted).map(|entry| at + file.little(entry + 16, 4))
        };
        let found = (item(FILE_PARAMETERS), item(DISK_SIZE), item(SECTOR_SIZE));
        let (Some(parameters), Some(size), Some(sector)) = found else {
            rules.hold(false, "the metadata has block size, disk size and sector size");
            return None;
        };
        let geometry = Self {
            block: file.little(parameters, 4),
            size: file.little(size, 8),
            sector: file.little(sector, 4),
            is_child: file.little(parameters + 4, 4) & 2 != 0,
        };
        let Self { block, size, sector, .. } = geometry;
        rules.hold((MIB..=256 * MIB).contains(&block) && block.is_power_of_two(), "a block is 1 to 256 MiB");
        rules.hold(sector == 512 || sector == 4096, "a sector has 512 or 4096 bytes");
        rules.hold(size > 0 && size.is_multiple_of(sector.max(1)), "the disk is whole sectors");
        rules.0.is_empty().then_some(geometry)
    }
}

/// CRC-32C of a structure with its own sum, at byte 4, as zeros.
fn crc_is_right(file: &File, at: u64, len: u64) -> bool {
    let mut bytes = file.bytes(at, len).to_vec();
    let Some(sum) = bytes.get_mut(4..8) else { return false };
    let found = u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]);
    sum.fill(0);
    Crc::<u32>::new(&CRC_32_ISCSI).checksum(&bytes) == found
}
