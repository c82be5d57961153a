//! Chains in memory for tests: layers as a person would draw them, made into files byte by byte from the
//! specifications, and read by rules of their own, so that a mistake in this module's readers and writers
//! does not cancel out.
//!
//! ```text
//!   Layer  blocks of sectors: Some(value) is the layer's own, None is the parent's (or zero)
//!   file   sectors that are not own are filled with 0xEE: whoever reads them reads wrong
//! ```

use std::rc::Rc;

use uuid::Uuid;

use super::vhdx::testing as vhdx;
use super::{BitmapSource, BlockPlan, ContainerWriter, Format, Image, OutState, Piece, open};

/// The file that `writer` lays out, with each stored block filled with its number, and with 0xFF what would be
/// copied from a source.
pub fn assemble(writer: &dyn ContainerWriter, plan: &BlockPlan, bitmaps: &dyn BitmapSource) -> Vec<u8> {
    let mut file = Vec::new();
    let mut put = |pieces: Vec<Piece>| {
        for piece in pieces {
            match piece {
                Piece::Zeros(len) => file.resize(file.len() + len as usize, 0),
                Piece::Bytes(bytes) => file.extend(bytes),
                Piece::Source { range, .. } => {
                    file.resize(file.len() + (range.end - range.start) as usize, 0xff);
                }
            }
        }
    };
    let mut step = 0;
    while let Some(pieces) = writer.front(plan, bitmaps, step).unwrap() {
        put(pieces);
        step += 1;
    }
    let stored = |block: &u64| matches!(plan.get(*block), OutState::Present | OutState::PartiallyPresent);
    for block in (0..plan.len()).filter(stored) {
        put(writer.before_payload(block, bitmaps).unwrap());
        put(vec![Piece::Bytes(vec![block as u8; writer.block_size().get() as usize])]);
    }
    put(writer.tail(plan).unwrap());
    assert_eq!(file.len() as u64, writer.file_size(plan).unwrap());
    file
}

/// What one block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// It is not present.
    Absent,
    /// VHDX: zero, whatever the parent holds.
    Zero,
    /// VHDX: wholly present, no bitmap is consulted. VHD: all bits are set.
    Full(Vec<u8>),
    /// Present as far as the bitmap says.
    Part(Vec<Option<u8>>),
}

/// One image of a chain.
#[derive(Debug, Clone)]
pub struct Layer {
    pub block_size: usize,
    pub sector: usize,
    pub size: usize,
    pub blocks: Vec<Held>,
}

/// Bytes of sector `number` of the disk. Value 0 is zero all over; 1 is zero but for the last byte; any
/// other differs from place to place and from value to value.
pub fn sector(value: u8, number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![if value == 1 { 0 } else { value }; len];
    match value {
        0 => {}
        1 => bytes[len - 1] = 1,
        _ => bytes[number % len] = !value,
    }
    bytes
}

impl Layer {
    /// A layer of `size` bytes in which nothing is present.
    pub fn new(size: usize, block_size: usize, sector: usize) -> Self {
        Self { block_size, sector, size, blocks: vec![Held::Absent; size.div_ceil(block_size)] }
    }

    pub fn sectors(&self) -> usize {
        self.block_size / self.sector
    }

    pub fn with(mut self, block: usize, held: Held) -> Self {
        self.blocks[block] = held;
        self
    }

    /// A block whose own sectors all have `value`.
    pub fn full(self, block: usize, value: u8) -> Self {
        let sectors = self.sectors();
        self.with(block, Held::Full(vec![value; sectors]))
    }

    /// A block that is partially present: `(sector, value)` are its own.
    pub fn part(self, block: usize, own: &[(usize, u8)]) -> Self {
        let mut sectors = vec![None; self.sectors()];
        for (at, value) in own {
            sectors[*at] = Some(*value);
        }
        self.with(block, Held::Part(sectors))
    }

    /// The value of a sector of the disk, unless it is the parent's.
    pub fn own(&self, number: usize) -> Option<u8> {
        if number * self.sector >= self.size {
            return Some(0);
        }
        match &self.blocks[number / self.sectors()] {
            Held::Absent => None,
            Held::Zero => Some(0),
            Held::Full(values) => Some(values[number % self.sectors()]),
            Held::Part(values) => values[number % self.sectors()],
        }
    }

    /// Payload as the file holds it.
    fn payload(&self, block: usize) -> Option<Vec<u8>> {
        let first = block * self.sectors();
        let bytes = |values: &mut dyn Iterator<Item = Option<u8>>| {
            values
                .enumerate()
                .flat_map(|(i, value)| match value {
                    Some(value) => sector(value, first + i, self.sector),
                    None => vec![0xee; self.sector],
                })
                .collect()
        };
        match &self.blocks[block] {
            Held::Absent | Held::Zero => None,
            Held::Full(values) => Some(bytes(&mut values.iter().copied().map(Some))),
            Held::Part(values) => Some(bytes(&mut values.iter().copied())),
        }
    }

    /// Whether sector `i` of the block has its bit set.
    fn bit(&self, block: usize, i: usize) -> bool {
        match &self.blocks[block] {
            Held::Full(_) => true,
            Held::Part(values) => values[i].is_some(),
            Held::Absent | Held::Zero => false,
        }
    }
}

/// The disk of a chain, the child first, by the rules of the specifications alone.
pub fn read(layers: &[&Layer]) -> Vec<u8> {
    let child = layers[0];
    let values = |number: usize| layers.iter().find_map(|layer| layer.own(number)).unwrap_or(0);
    (0..child.size / child.sector).flat_map(|n| sector(values(n), n, child.sector)).collect()
}

/// The identifier of image number `id`.
pub fn identity(id: u8) -> Uuid {
    Uuid::from_u128(0xaaaa_bbbb_cccc_4ddd_8eee_0000_0000_0000 + u128::from(id))
}

/// The time stamp in the footer of VHD number `id`.
pub fn time(id: u8) -> u32 {
    700_000_000 + u32::from(id)
}

/// The file of a layer in either format. Image `id` names image `parent` as its parent; without one, what
/// would be the parent's is zero.
pub fn file(format: Format, layer: &Layer, id: u8, parent: Option<u8>) -> Vec<u8> {
    let mut layer = layer.clone();
    for held in layer.blocks.iter_mut().filter(|_| parent.is_none()) {
        if let Held::Part(values) = held {
            *held = Held::Full(values.iter().map(|value| value.unwrap_or(0)).collect());
        }
    }
    match format {
        Format::Vhd => vhd(&layer, id, parent),
        Format::Vhdx => vhdx(&layer, id, parent),
    }
}

pub fn image(bytes: &[u8]) -> Image {
    open(Rc::new(bytes.to_vec())).unwrap()
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}

/// Writes a structure's checksum at `at`: one's complement of the byte sum.
pub fn seal(structure: &mut [u8], at: usize) {
    put(structure, at, &[0; 4]);
    let sum: u32 = structure.iter().map(|&byte| u32::from(byte)).sum();
    put(structure, at, &(!sum).to_be_bytes());
}

fn utf16_be(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A dynamic VHD, or a differencing one with two locators, whose space is given in bytes and in sectors.
fn vhd(layer: &Layer, id: u8, parent: Option<u8>) -> Vec<u8> {
    assert_eq!(layer.sector, 512);
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 8, &2u32.to_be_bytes());
    put(&mut footer, 12, &0x0001_0000u32.to_be_bytes());
    put(&mut footer, 16, &512u64.to_be_bytes());
    put(&mut footer, 24, &time(id).to_be_bytes());
    put(&mut footer, 28, b"win \x00\x0a\x00\x00Wi2k");
    put(&mut footer, 40, &(layer.size as u64).to_be_bytes());
    put(&mut footer, 48, &(layer.size as u64).to_be_bytes());
    put(&mut footer, 56, &[0, 100, 4, 17]);
    put(&mut footer, 60, &if parent.is_some() { 4u32 } else { 3 }.to_be_bytes());
    put(&mut footer, 68, identity(id).as_bytes());
    seal(&mut footer, 64);

    let mut header = vec![0; 1024];
    put(&mut header, 0, b"cxsparse");
    put(&mut header, 8, &[0xff; 8]);
    put(&mut header, 24, &0x0001_0000u32.to_be_bytes());
    put(&mut header, 28, &(layer.blocks.len() as u32).to_be_bytes());
    put(&mut header, 32, &(layer.block_size as u32).to_be_bytes());
    let mut rest = Vec::new();
    if let Some(parent) = parent {
        put(&mut header, 40, identity(parent).as_bytes());
        put(&mut header, 56, &time(parent).to_be_bytes());
        let name = format!("parent{parent}.vhd");
        put(&mut header, 64, &utf16_be(&name));
        for (i, (code, space, path)) in
            [(b"W2ru", 512u32, format!(".\\{name}")), (b"W2ku", 1, format!("C:\\vm\\{name}"))]
                .into_iter()
                .enumerate()
        {
            let data = vhdx::utf16(&path);
            let at = 576 + 24 * i;
            put(&mut header, at, code);
            put(&mut header, at + 4, &space.to_be_bytes());
            put(&mut header, at + 8, &(data.len() as u32).to_be_bytes());
            put(&mut header, at + 16, &(1536 + rest.len() as u64).to_be_bytes());
            rest.extend(data);
            rest.resize(512 * (i + 1), 0);
        }
    }
    let table = 1536 + rest.len();
    put(&mut header, 16, &(table as u64).to_be_bytes());
    seal(&mut header, 36);

    let mut bat = vec![0xff; (4 * layer.blocks.len()).next_multiple_of(512)];
    let start = table + bat.len();
    let mut payload = Vec::new();
    // The last block first, so that no order is right by chance.
    for block in (0..layer.blocks.len()).rev() {
        let Some(bytes) = layer.payload(block) else { continue };
        put(&mut bat, 4 * block, &(((start + payload.len()) / 512) as u32).to_be_bytes());
        let mut bitmap = vec![0; layer.sectors().div_ceil(8).next_multiple_of(512)];
        for i in (0..layer.sectors()).filter(|&i| layer.bit(block, i)) {
            bitmap[i / 8] |= 0x80 >> (i % 8);
        }
        payload.extend(bitmap);
        payload.extend(bytes);
    }
    [footer.as_slice(), &header, &rest, &bat, &payload, &footer].concat()
}

/// A VHDX of one chunk.
fn vhdx(layer: &Layer, id: u8, parent: Option<u8>) -> Vec<u8> {
    use vhdx::{BAT, DISK_SIZE, FILE_PARAMETERS, HEADER_1, HEADER_2, LOGICAL, MIB, TestImage};
    let mut image = match parent {
        Some(_) => TestImage::differencing(),
        None => TestImage::dynamic(),
    };
    image.bytes.truncate(4 * MIB);
    let ratio = (8 << 20) * layer.sector / layer.block_size;
    assert!(layer.blocks.len() <= ratio);
    image.put(BAT, &[0; 64]);
    image.bat(vhdx::BITMAP_ENTRY, 0);
    for at in [HEADER_1, HEADER_2] {
        image.put(at + 32, &identity(id).to_bytes_le());
    }
    image.put32(FILE_PARAMETERS, layer.block_size as u32);
    image.put64(DISK_SIZE, layer.size as u64);
    image.put32(LOGICAL, layer.sector as u32);
    if let Some(parent) = parent {
        let linkage = identity(parent).braced().to_string().to_uppercase();
        let name = format!("parent{parent}.vhdx");
        image.set_locator(&[
            ("parent_linkage", linkage.as_str()),
            ("parent_linkage2", "{00000000-0000-0000-0000-000000000000}"),
            ("relative_path", &format!(".\\{name}")),
            ("absolute_win32_path", &format!("C:\\vm\\{name}")),
        ]);
    }
    let mut bitmap = vec![0; MIB];
    for block in (0..layer.blocks.len()).rev() {
        let state = match &layer.blocks[block] {
            Held::Absent => 0,
            Held::Zero => 2,
            Held::Full(_) => 6,
            Held::Part(_) => 7,
        };
        let place = image.bytes.len() as u64;
        image.bat(block, if state < 6 { state } else { place | state });
        if let Some(bytes) = layer.payload(block) {
            image.bytes.extend(bytes);
        }
        // The bits of a block that is wholly present are not consulted: let them say the opposite.
        for i in (0..layer.sectors()).filter(|&i| state == 7 && layer.bit(block, i)) {
            let bit = block * layer.sectors() + i;
            bitmap[bit / 8] |= 1 << (bit % 8);
        }
    }
    if parent.is_some() {
        let place = image.bytes.len() as u64;
        image.bat(ratio, place | 6);
        image.bytes.extend(bitmap);
    }
    image.seal();
    image.bytes
}
