//! VHDX, after \[MS-VHDX\]. All numbers are little-endian.
//!
//! ```text
//!   identifier │ headers │ region tables │ log   │ metadata │ table │ payload and bitmap blocks …
//!   0            64, 128   192, 256 KiB    1 MiB   2 MiB      3 MiB
//! ```

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::Path;

use crc::{CRC_32_ISCSI, Crc};
use uuid::{Uuid, uuid};

use crate::{Absent, Disk, Output, Parent, Shape, identifier, require};

const MIB: u64 = 1 << 20;
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const TABLE_AT: u64 = 3 * MIB;
/// Section 2.5.1.1: sectors that a sector bitmap block covers.
const SECTORS_A_CHUNK: u64 = 1 << 23;

const BAT_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const VIRTUAL_DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const VIRTUAL_DISK_ID: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
const LOGICAL_SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
const PHYSICAL_SECTOR_SIZE: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
const PARENT_LOCATOR: Uuid = uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c");
const VHDX_PARENT: Uuid = uuid!("b04aefb7-d19e-4a81-b789-25b8e9445913");

const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;

pub fn write(shape: &Shape, mut disk: Disk, parent: Option<&Parent>, image: &Path) -> Result<()> {
    require(shape.block_size.is_multiple_of(MIB), "blocks of a VHDX are whole MiB")?;
    let mut output = Output::create(image)?;
    let chunk = SECTORS_A_CHUNK * shape.sector_size / shape.block_size;
    let blocks = disk.size.div_ceil(shape.block_size);
    // A bitmap entry follows the entries of each chunk; without a parent the last one is left out.
    let entries = match parent {
        Some(_) => blocks.div_ceil(chunk) * (chunk + 1),
        None => blocks + (blocks - 1) / chunk,
    };
    let entry_of = |block: u64| (block + block / chunk) as usize;
    let mut table = vec![0; entries as usize];
    let table_len = (entries * 8).next_multiple_of(MIB);
    let mut at = TABLE_AT + table_len;

    if parent.is_none() {
        for block in 0..blocks {
            table[entry_of(block)] = match shape.absent {
                Absent::NotPresent => 0,
                Absent::Zero => 2,
                Absent::Unmapped => 3,
                Absent::Mixed => block % 4,
            };
        }
    }
    let mut below = parent.map(|parent| Disk::open(parent.disk)).transpose()?;
    let mut bitmaps: Vec<Option<Vec<u8>>> = vec![None; blocks.div_ceil(chunk) as usize];
    for (n, number) in shape.stored_blocks(&mut disk, &mut below)?.into_iter().enumerate() {
        if shape.leaks_before(n) {
            output.put(at, &shape.leaked_block())?;
            at += shape.block_size;
        }
        let block = shape.block(&mut disk, &mut below, number)?;
        let inside = (disk.size - number * shape.block_size).min(shape.block_size) / shape.sector_size;
        let state = match &block.own {
            Some(own) if own[..inside as usize].contains(&false) => PARTIALLY_PRESENT,
            _ => FULLY_PRESENT,
        };
        if let Some(own) = &block.own {
            let bitmap = bitmaps[(number / chunk) as usize].get_or_insert_with(|| vec![0; MIB as usize]);
            let first = (block.number % chunk * (shape.block_size / shape.sector_size)) as usize;
            for sector in own.iter().enumerate().filter(|(_, own)| **own).map(|(n, _)| first + n) {
                bitmap[sector / 8] |= 1 << (sector % 8);
            }
        }
        output.put_payload(at, &block.payload)?;
        table[entry_of(number)] = (at / MIB) << 20 | state;
        at += shape.block_size;
    }
    for (n, bitmap) in bitmaps.into_iter().enumerate() {
        if let Some(bitmap) = bitmap {
            output.put_payload(at, &bitmap)?;
            table[(n as u64 * (chunk + 1) + chunk) as usize] = (at / MIB) << 20 | FULLY_PRESENT;
            at += MIB;
        }
    }
    output.extend_to(at)?;

    let mut table: Vec<u8> = table.into_iter().flat_map(u64::to_le_bytes).collect();
    table.resize(table_len as usize, 0);
    let log = identifier(image, "log");
    if shape.open_log {
        output.put(LOG_AT, &log_entry(&table[..4096], log, at))?;
        table[..4096].fill(0);
    }
    output.put(TABLE_AT, &table)?;
    let creator: Vec<u8> = "odd-images".encode_utf16().flat_map(u16::to_le_bytes).collect();
    output.put(0, &[b"vhdxfile", &creator[..]].concat())?;
    output.put(METADATA_AT, &metadata(shape, disk.size, parent, image)?)?;
    for (n, at) in HEADERS.into_iter().enumerate() {
        let is_current = n == 1;
        let log = if is_current && shape.open_log { log } else { Uuid::nil() };
        output.put(at, &header(n as u64 + 1, image, log))?;
    }
    let regions = region_table(table_len);
    REGION_TABLES.into_iter().try_for_each(|at| output.put(at, &regions))
}

/// Sets the checksum at offset 4 of a structure.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Section 2.2.2.
fn header(sequence: u64, image: &Path, log: Uuid) -> Vec<u8> {
    let mut header = vec![0; 4096];
    header[..4].copy_from_slice(b"head");
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..32].copy_from_slice(&identifier(image, "file write").to_bytes_le());
    header[32..48].copy_from_slice(&identifier(image, "data write").to_bytes_le());
    header[48..64].copy_from_slice(&log.to_bytes_le());
    header[66..68].copy_from_slice(&1u16.to_le_bytes());
    header[68..72].copy_from_slice(&(MIB as u32).to_le_bytes());
    header[72..80].copy_from_slice(&LOG_AT.to_le_bytes());
    with_checksum(header)
}

/// Section 2.2.3: the table and the metadata, both required.
fn region_table(table_len: u64) -> Vec<u8> {
    let mut table = vec![0; 64 << 10];
    table[..4].copy_from_slice(b"regi");
    table[8..12].copy_from_slice(&2u32.to_le_bytes());
    for (n, (id, at, len)) in
        [(BAT_REGION, TABLE_AT, table_len), (METADATA_REGION, METADATA_AT, MIB)].into_iter().enumerate()
    {
        let entry = &mut table[16 + 32 * n..];
        entry[..16].copy_from_slice(&id.to_bytes_le());
        entry[16..24].copy_from_slice(&at.to_le_bytes());
        entry[24..28].copy_from_slice(&(len as u32).to_le_bytes());
        entry[28..32].copy_from_slice(&1u32.to_le_bytes());
    }
    with_checksum(table)
}

/// Section 2.3: an entry of two sectors, which restores the first 4 KiB of the table.
fn log_entry(sector: &[u8], log: Uuid, file_size: u64) -> Vec<u8> {
    const SEQUENCE: u64 = 1;
    let mut entry = vec![0; 8192];
    entry[..4].copy_from_slice(b"loge");
    entry[8..12].copy_from_slice(&8192u32.to_le_bytes());
    // The tail, at 12, is this entry's own offset: zero.
    entry[16..24].copy_from_slice(&SEQUENCE.to_le_bytes());
    entry[24..28].copy_from_slice(&1u32.to_le_bytes());
    entry[32..48].copy_from_slice(&log.to_bytes_le());
    entry[48..56].copy_from_slice(&file_size.to_le_bytes());
    entry[56..64].copy_from_slice(&file_size.to_le_bytes());
    // The descriptor keeps the sector's first eight and last four bytes, the data sector the rest.
    entry[64..68].copy_from_slice(b"desc");
    entry[68..72].copy_from_slice(&sector[4092..]);
    entry[72..80].copy_from_slice(&sector[..8]);
    entry[80..88].copy_from_slice(&TABLE_AT.to_le_bytes());
    entry[88..96].copy_from_slice(&SEQUENCE.to_le_bytes());
    entry[4096..4100].copy_from_slice(b"data");
    entry[4100..4104].copy_from_slice(&((SEQUENCE >> 32) as u32).to_le_bytes());
    entry[4104..8188].copy_from_slice(&sector[8..4092]);
    entry[8188..].copy_from_slice(&(SEQUENCE as u32).to_le_bytes());
    with_checksum(entry)
}

/// Section 2.6: the metadata table and its items.
fn metadata(shape: &Shape, size: u64, parent: Option<&Parent>, image: &Path) -> Result<Vec<u8>> {
    const IS_VIRTUAL_DISK: u32 = 2;
    const IS_REQUIRED: u32 = 4;
    let kind = u32::from(shape.fixed) | if parent.is_some() { 2 } else { 0 };
    let parameters = [(shape.block_size as u32).to_le_bytes(), kind.to_le_bytes()].concat();
    let disk = IS_VIRTUAL_DISK | IS_REQUIRED;
    let mut items = vec![
        (FILE_PARAMETERS, parameters, IS_REQUIRED),
        (VIRTUAL_DISK_SIZE, size.to_le_bytes().to_vec(), disk),
        (LOGICAL_SECTOR_SIZE, (shape.sector_size as u32).to_le_bytes().to_vec(), disk),
        (PHYSICAL_SECTOR_SIZE, shape.physical_sector_size.to_le_bytes().to_vec(), disk),
        (VIRTUAL_DISK_ID, identifier(image, "disk").to_bytes_le().to_vec(), disk),
    ];
    if let Some(parent) = parent {
        items.push((PARENT_LOCATOR, parent_locator(parent)?, IS_REQUIRED));
    }
    let mut metadata = vec![0; 64 << 10];
    metadata[..8].copy_from_slice(b"metadata");
    metadata[10..12].copy_from_slice(&(items.len() as u16).to_le_bytes());
    for (n, (id, value, flags)) in items.into_iter().enumerate() {
        let at = metadata.len() as u32;
        let entry = &mut metadata[32 + 32 * n..];
        entry[..16].copy_from_slice(&id.to_bytes_le());
        entry[16..20].copy_from_slice(&at.to_le_bytes());
        entry[20..24].copy_from_slice(&(value.len() as u32).to_le_bytes());
        entry[24..28].copy_from_slice(&flags.to_le_bytes());
        metadata.extend_from_slice(&value);
        metadata.resize(metadata.len().next_multiple_of(8), 0);
    }
    Ok(metadata)
}

/// Section 2.6.2.6: pairs of names and values in UTF-16.
fn parent_locator(parent: &Parent) -> Result<Vec<u8>> {
    let name = parent.file_name()?;
    let pairs = [
        ("parent_linkage", data_write_guid(parent.image)?.braced().to_string()),
        ("parent_linkage2", Uuid::nil().braced().to_string()),
        ("relative_path", format!(".\\{name}")),
        ("absolute_win32_path", parent.windows_path()?),
        ("volume_path", format!("\\\\?\\Volume{{1b0f6f0a-0000-0000-0000-100000000000}}\\vm\\{name}")),
    ];
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut locator = vec![0; 20 + 12 * pairs.len()];
    locator[..16].copy_from_slice(&VHDX_PARENT.to_bytes_le());
    locator[18..20].copy_from_slice(&(pairs.len() as u16).to_le_bytes());
    for (n, (key, value)) in pairs.into_iter().enumerate() {
        let (key, value) = (utf16(key), utf16(&value));
        let at = locator.len() as u32;
        let entry = &mut locator[20 + 12 * n..];
        entry[..4].copy_from_slice(&at.to_le_bytes());
        entry[4..8].copy_from_slice(&(at + key.len() as u32).to_le_bytes());
        entry[8..10].copy_from_slice(&(key.len() as u16).to_le_bytes());
        entry[10..12].copy_from_slice(&(value.len() as u16).to_le_bytes());
        locator.extend([key, value].concat());
    }
    Ok(locator)
}

/// DataWriteGuid of the current header of a VHDX.
fn data_write_guid(image: &Path) -> Result<Uuid> {
    let mut file = File::open(image)?;
    let mut current = None;
    for at in HEADERS {
        let mut header = [0; 80];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut header)?;
        let sequence = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
        if header.starts_with(b"head") && current.is_none_or(|(newest, _)| sequence > newest) {
            current = Some((sequence, header));
        }
    }
    let (_, header) =
        current.ok_or_else(|| Error::new(ErrorKind::InvalidData, "the parent has no header"))?;
    Ok(Uuid::from_bytes_le(header[32..48].try_into().expect("sixteen bytes")))
}
