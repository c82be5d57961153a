//! Chains of differencing disks, compacted in memory.

mod drops;
mod links;
mod random;
mod readings;

use std::ops::Range;
use std::rc::Rc;

use uuid::Uuid;

use super::testing::prove;
use super::testing::{execute, lay_out, plan};
use super::*;
use crate::extents::Extents;
use crate::image::testing::{self, Held, Layer, identity, image};
use crate::image::{
    self, BlockState, Candidate, Disk, DiskType, Format, Image, Metadata, ParentTrust, assemble,
};
use crate::io::{ReadAt, read_vec};
use crate::{ErrorKind, Result};

const FORMATS: [Format; 2] = [Format::Vhd, Format::Vhdx];
/// The data write GUID of an image whose reads changed.
const NEW: Uuid = Uuid::from_u128(0x4ee5);

/// Blocks of 16 sectors in a VHD, of 2048 in a VHDX, and a last one cut by five sectors.
fn empty(format: Format) -> Layer {
    let block = match format {
        Format::Vhd => 8 << 10,
        Format::Vhdx => 1 << 20,
    };
    Layer::new(4 * block - 5 * 512, block, 512)
}

struct Compacted {
    file: Vec<u8>,
    outcome: Outcome,
    image: Image,
}

/// Compacts image 0 of `layers`, whose parents follow it; `given` of them are given, the last one first.
fn compact(
    format: Format,
    layers: &[&Layer],
    given: usize,
    free: Extents,
    options: Options,
) -> Result<Compacted> {
    let files = files(format, layers);
    let result = compact_files(&files[..=given], free.clone(), options)?;
    // Through all of its parents, whichever were given, nothing but free space differs.
    let parents = if result.image.disk_type == DiskType::Differencing { &files[1..] } else { &[] };
    let (before, after) = (testing::read(layers), contents(&result.file, parents));
    for used in free.gaps(0..before.len() as u64) {
        let used = used.start as usize..used.end as usize;
        assert!(before[used.clone()] == after[used], "a used byte was lost");
    }
    let unchanged = before == after[..before.len()];
    assert!(unchanged || result.outcome.reads_changed, "reads changed and nobody was told");
    Ok(result)
}

fn files(format: Format, layers: &[&Layer]) -> Vec<Vec<u8>> {
    let last = layers.len() - 1;
    layers
        .iter()
        .enumerate()
        .map(|(i, layer)| testing::file(format, layer, i as u8 + 1, (i < last).then_some(i as u8 + 2)))
        .collect()
}

fn open_chain(files: &[Vec<u8>]) -> Result<Disk> {
    let parents = files.iter().enumerate().skip(1).rev();
    let parents = parents.map(|(i, bytes)| Candidate {
        image: image(bytes),
        name: format!("parent{i}"),
        modified: None,
    });
    let chain = assemble(image(&files[0]), parents.collect(), ParentTrust::default())?;
    let backwards: Vec<usize> = std::iter::once(0).chain((1..files.len()).rev()).collect();
    // Which file is which layer is told right, whatever their order.
    assert!(chain.files.iter().enumerate().all(|(layer, file)| backwards[*file] == layer));
    Disk::of_layers(chain.layers)
}

fn compact_files(files: &[Vec<u8>], free: Extents, options: Options) -> Result<Compacted> {
    let plan = plan(open_chain(files)?, free, options)?;
    let estimated = estimate(&plan)?;
    let fresh =
        Fresh { data_write: NEW, file_write: Uuid::from_u128(77), disk: Uuid::from_u128(78), time_stamp: 1 };
    let layout = lay_out(&plan, 1, &fresh)?;
    let outcome = layout.outcome();
    let sources: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let file = execute(&layout, &sources);
    assert_eq!(estimated.parts.iter().map(|part| part.bytes).sum::<u64>(), estimated.output_size);
    assert!(outcome.size <= estimated.output_size, "the estimate is a promise");
    assert!(!estimated.exact || outcome.size == estimated.output_size, "an exact estimate is exact");
    prove(&layout, &file)?;
    Ok(Compacted { image: image(&file), file, outcome })
}

/// The disk of an output and the parents that were not changed.
fn contents(file: &[u8], parents: &[Vec<u8>]) -> Vec<u8> {
    let layers = std::iter::once(file).chain(parents.iter().map(Vec::as_slice));
    let disk = Disk::of_layers(layers.map(|file| Rc::new(image(file))).collect()).unwrap();
    read_vec(&disk, 0, disk.size() as usize).unwrap()
}

fn zero() -> Options {
    Options { mode: Mode::Zero, ..Options::default() }
}

fn none() -> Extents {
    Extents::new()
}

fn extent(range: Range<u64>) -> Extents {
    let mut extents = Extents::new();
    extents.push(range);
    extents
}

fn stays(state: BlockState) -> bool {
    matches!(state, BlockState::Present(_) | BlockState::PartiallyPresent(_))
}
