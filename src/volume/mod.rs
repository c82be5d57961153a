//! Volumes: where on a virtual disk file systems may lie.
//!
//! ```text
//!   LBA 0            1                         …                       last
//!   ├ MBR ───────────┤ primary partitions, logical partitions in an extended one
//!   ├ protective MBR ┤ GPT header │ entries │ partitions … │ entries │ GPT header
//!   └ a file system on the bare disk (WSL's ext4.vhdx)
//! ```
//! Only ranges are found here. Bytes outside every volume belong to someone (boot loaders, backup
//! tables) and stay unless they are zero.
//!
//! **A table is believed only if nothing speaks against it.** A stale or foreign table would show
//! stale file systems inside a live one, and their free space would be a person's data. So the whole
//! table is distrusted, and nothing is mapped, where partitions overlap each other or the table's own
//! structures, where another signature claims the bare disk, where a protective MBR has no valid GPT
//! and where a hybrid MBR contradicts the GPT. A volume is `opaque` where the table itself says that
//! it is a part of something larger.

mod gpt;
mod kinds;
pub mod label;
mod lost;
pub mod lvm;
mod mbr;
pub mod signature;

use std::ops::Range;

use self::mbr::{FirstSector, Slot};
use self::signature::Claim;
use crate::error::{Error, Result, Warning};
use crate::io::{ReadAt, Segments};
use crate::units::overlap;

/// The code of the warning that a file system lies under a partition table that was written over it.
pub const LOST_FILE_SYSTEM: &str = "ext-under-partition-table";

/// How the disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A master boot record.
    Mbr,
    /// A GUID partition table.
    Gpt,
    /// One file system (or nothing known) on the bare disk.
    Whole,
    /// A volume group of LVM2 on one of the others.
    Lvm,
}

impl Scheme {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mbr => "mbr",
            Self::Gpt => "gpt",
            Self::Whole => "whole",
            Self::Lvm => "lvm",
        }
    }
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The scheme that told of it.
    pub scheme: Scheme,
    /// Its number as Linux and `fdisk` count: MBR 1–4 primary, 5… logical; GPT entry index + 1; 0 for
    /// the bare disk; logical volumes of LVM from 1 on, by name.
    pub index: u32,
    /// Its bytes on the virtual disk, inside the disk and overlapping no other volume.
    pub segments: Segments,
    /// The partition type, as people know it: "NTFS/exFAT (0x07)", "Linux filesystem", "EFI system".
    pub kind: String,
    /// The name of the GPT partition or ("group/volume") of the logical volume, if there is one.
    pub name: Option<String>,
    /// Why what is inside must not be read as a file system of its own, where the table says so: the
    /// end of a sentence that begins "Nothing is read here, because".
    pub opaque: Option<String>,
    /// For a physical volume of LVM: what its logical volumes, which are volumes of their own, leave of it.
    pub rest_of_lvm: Option<lvm::Rest>,
}

/// Whose file systems may lie in a volume, so that their system can let go of what is free in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// There are none: the partition is a boot loader's or the system's own, or divided further.
    NoFileSystem,
    /// Windows' own kinds of volumes: dynamic disks and storage pools.
    Windows,
    /// Anybody's.
    Any,
}

impl Volume {
    /// Where it is, as people say it: "the whole disk", "partition 2", "logical volume group/root". Names come from the
    /// image, with what cannot be seen made visible.
    #[must_use]
    pub fn place(&self) -> String {
        match (self.scheme, &self.name) {
            (Scheme::Whole, _) => "the whole disk".into(),
            (Scheme::Lvm, Some(name)) => format!("logical volume {}", name.escape_debug()),
            (Scheme::Lvm, None) => format!("logical volume {}", self.index),
            (Scheme::Mbr | Scheme::Gpt, _) => format!("partition {}", self.index),
        }
    }

    /// Whose file systems may lie in it, by what the table says.
    #[must_use]
    pub fn inside(&self) -> Inside {
        self.opaque.as_deref().map_or(Inside::Any, kinds::inside)
    }
}

/// The volumes of a disk.
#[derive(Debug, Clone, Default)]
pub struct VolumeTable {
    /// The volumes, ascending by start, none overlapping.
    pub volumes: Vec<Volume>,
    /// What is wrong with the tables and did not stop the work ("the primary GPT is damaged").
    pub warnings: Vec<Warning>,
    /// Set where the partition tables cannot be believed at all: then there are no volumes, and
    /// only zeros are dropped.
    pub distrust: Option<String>,
}

/// Finds the volumes of a disk with logical sectors of `sector_size` bytes.
///
/// # Errors
/// Only where the disk cannot be read; nonsense in the tables becomes `distrust` or a warning.
pub fn enumerate(disk: &dyn ReadAt, sector_size: u32) -> Result<VolumeTable> {
    let mut table = partitions(disk, sector_size)?;
    let mut volumes = Vec::new();
    for volume in table.volumes {
        // A type that says "LVM" keeps the bytes only as long as nothing says whose they are.
        let may_be_lvm = volume.opaque.as_deref().is_none_or(|why| why == kinds::LVM);
        match if may_be_lvm { lvm::divide(disk, &volume)? } else { None } {
            Some(parts) => volumes.extend(parts),
            None => volumes.push(volume),
        }
    }
    sort(&mut volumes);
    table.volumes = volumes;
    Ok(table)
}

/// Finds the partitions of a disk, or the bare disk.
fn partitions(disk: &dyn ReadAt, sector_size: u32) -> Result<VolumeTable> {
    let sector_size = u64::from(sector_size);
    if !matches!(sector_size, 512 | 4096) {
        return Ok(distrust(
            format!("A disk with sectors of {sector_size} bytes is not understood."),
            vec![],
        ));
    }
    let claims = signature::claims(disk)?;
    let mut table = match mbr::first_sector(disk)? {
        FirstSector::NoTable if has_gpt_header(disk)? => distrust(
            "There is a GUID partition table without its protective MBR: no system would use it, and \
             it may be a leftover. Restore the MBR (gdisk does it) or delete the table.",
            vec![],
        ),
        FirstSector::NoTable => return Ok(whole(disk)),
        FirstSector::Table(slots) if is_boot_sector(&slots, disk.size(), &claims) => return Ok(whole(disk)),
        FirstSector::Table(slots) => from_mbr(disk, sector_size, &slots, &claims)?,
        FirstSector::Odd(slots) => distrust(
            format!(
                "The partition table in the first sector is damaged: it has an impossible boot flag, though {} \
                 of its partitions begin inside the disk.",
                slots.len()
            ),
            vec![],
        ),
        FirstSector::Protective(others) => from_gpt(disk, sector_size, &others, &claims)?,
    };
    table.warnings.extend(lost::bare_ext(disk, &claims, &table)?);
    Ok(table)
}

/// The bare disk as one volume.
fn whole(disk: &dyn ReadAt) -> VolumeTable {
    let volume = Volume {
        scheme: Scheme::Whole,
        index: 0,
        segments: Segments::single(0..disk.size()),
        kind: "whole disk".into(),
        name: None,
        opaque: None,
        rest_of_lvm: None,
    };
    VolumeTable { volumes: vec![volume], ..VolumeTable::default() }
}

fn distrust(why: impl Into<String>, warnings: Vec<Warning>) -> VolumeTable {
    VolumeTable { volumes: Vec::new(), warnings, distrust: Some(why.into()) }
}

fn has_gpt_header(disk: &dyn ReadAt) -> Result<bool> {
    Ok(gpt::has_primary_header(disk, 512)? || gpt::has_primary_header(disk, 4096)?)
}

/// Whether sector 0 is a file system's boot sector rather than an MBR, both of which end in 55 AA. A
/// file system's has boot code where the entries would be, so that none of them begins inside the disk; or
/// the one fake entry over all of itself that `mkfs.fat` writes for Windows' sake. Where a partition ends
/// does not count: of a disk that was cut short, or whose table is off by a few sectors, it lies outside.
fn is_boot_sector(slots: &[Slot], disk_size: u64, claims: &[Claim]) -> bool {
    // The smaller of both sector sizes: the more sectors, the more entries begin inside.
    let sectors = disk_size.div_ceil(512);
    let fake =
        matches!(slots, [only] if only.first == 0 && only.end <= sectors && !kinds::is_extended(only.kind));
    let begins_inside = |slot: &Slot| slot.first < sectors;
    claims.iter().any(|claim| claim.offset < 512) && (fake || !slots.iter().any(begins_inside))
}

/// Whether the disk byte `at` belongs to a volume.
fn covers(volume: &Volume, at: u64) -> bool {
    volume.segments.ranges().iter().any(|range| range.contains(&at))
}

/// What a table says, before it is believed.
#[derive(Default)]
struct Layout {
    volumes: Vec<Volume>,
    /// The bytes of the table's own structures.
    own: Vec<Range<u64>>,
    warnings: Vec<Warning>,
}

fn from_mbr(disk: &dyn ReadAt, sector_size: u64, slots: &[Slot], claims: &[Claim]) -> Result<VolumeTable> {
    // Before the extended ones are opened: what lies inside one is for its chain to give away.
    if overlap(slots.iter().map(|slot| slot.first..slot.end).collect()) {
        return Ok(distrust(OVERLAP, vec![]));
    }
    let mut layout = Layout::default();
    layout.own.push(0..sector_size);
    if has_gpt_header(disk)? {
        layout.warn(
            "gpt-ignored",
            "There is also a GUID partition table, which systems ignore without a protective MBR.",
        );
    }
    for &slot in slots {
        if kinds::is_extended(slot.kind) {
            layout.add_logical(disk, sector_size, slot)?;
        } else {
            layout.volumes.push(mbr_volume(slot, sector_size));
        }
    }
    Ok(layout.settle(disk.size(), claims))
}

const OVERLAP: &str =
    "Partitions overlap each other or the partition table itself, so it is unclear whose the bytes are.";

/// Puts volumes in the order of the disk.
#[inline(never)]
fn sort(volumes: &mut [Volume]) {
    volumes.sort_unstable_by_key(|volume| volume.segments.start());
}

fn mbr_volume(slot: Slot, sector_size: u64) -> Volume {
    let kind = kinds::mbr(slot.kind);
    Volume {
        scheme: Scheme::Mbr,
        index: slot.index,
        segments: Segments::single(bytes(&(slot.first..slot.end), sector_size)),
        kind: kind.name,
        name: None,
        opaque: kind.opaque,
        rest_of_lvm: None,
    }
}

/// Sectors as bytes. What would not fit 64 bits is clamped: it lies past the end of every disk, and is cut
/// off there.
fn bytes(sectors: &Range<u64>, sector_size: u64) -> Range<u64> {
    sectors.start.saturating_mul(sector_size)..sectors.end.saturating_mul(sector_size)
}

fn from_gpt(disk: &dyn ReadAt, sector_size: u64, others: &[Slot], claims: &[Claim]) -> Result<VolumeTable> {
    let other_size = if sector_size == 512 { 4096 } else { 512 };
    let table = match gpt::read(disk, sector_size)? {
        Some(table) => Some(table),
        None => gpt::read(disk, other_size)?,
    };
    let Some(table) = table else {
        return Ok(distrust(
            "The MBR says that there is a GUID partition table, but neither its primary nor its backup \
             copy is valid. Repair it first (gdisk, sgdisk --verify).",
            vec![],
        ));
    };
    let own = table.own.iter().map(|sectors| bytes(sectors, table.sector_size)).collect();
    let mut layout = Layout { own, warnings: gpt_warnings(&table, sector_size), ..Layout::default() };
    if !others.is_empty() {
        if let Some(slot) = others.iter().find(|slot| !is_mirrored(slot, &table)) {
            return Ok(distrust(
                format!(
                    "Entry {} of the hybrid MBR contradicts the GUID partition table, so it is unclear \
                     which of them is right.",
                    slot.index
                ),
                layout.warnings,
            ));
        }
        layout.warn("gpt-hybrid", "The MBR repeats partitions of the GUID partition table, which is used.");
    }
    for partition in &table.partitions {
        if partition.end <= partition.first {
            return Ok(distrust(
                format!("Partition {} ends before it starts.", partition.index),
                layout.warnings,
            ));
        }
        let kind = kinds::gpt(partition.kind);
        layout.volumes.push(Volume {
            scheme: Scheme::Gpt,
            index: partition.index,
            segments: Segments::single(bytes(&(partition.first..partition.end), table.sector_size)),
            kind: kind.name,
            name: partition.name.clone(),
            opaque: kind.opaque,
            rest_of_lvm: None,
        });
    }
    Ok(layout.settle(disk.size(), claims))
}

/// Whether an entry of a hybrid MBR is one of the GPT's partitions, or touches none of them.
fn is_mirrored(slot: &Slot, table: &gpt::Table) -> bool {
    let same = |p: &gpt::Partition| p.first == slot.first && p.end == slot.end;
    let apart = |p: &gpt::Partition| p.end <= slot.first || slot.end <= p.first;
    table.partitions.iter().any(same) || table.partitions.iter().all(apart)
}

fn gpt_warnings(table: &gpt::Table, sector_size: u64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if table.sector_size != sector_size {
        warnings.push(Warning::new(
            "gpt-sector-size",
            format!(
                "The partition table counts in sectors of {} bytes and the disk has sectors of {sector_size} \
                 bytes: the disk was copied between sector sizes and may not start as it is.",
                table.sector_size
            ),
        ));
    }
    let copies = match table.copies {
        gpt::Copies::Agree => None,
        gpt::Copies::NoBackup => {
            Some(("gpt-backup-damaged", "The backup copy of the partition table is missing or damaged."))
        }
        gpt::Copies::NoPrimary => {
            Some(("gpt-primary-damaged", "The primary partition table is damaged; its backup copy is used."))
        }
        gpt::Copies::Differ => Some((
            "gpt-copies-differ",
            "The two copies of the partition table differ; the primary one is used, as every system does.",
        )),
    };
    warnings.extend(copies.map(|(code, message)| Warning::new(code, message)));
    let outside = |p: &&gpt::Partition| p.first < table.usable.start || p.end > table.usable.end;
    if let Some(partition) = table.partitions.iter().find(outside) {
        warnings.push(Warning::new(
            "gpt-outside-usable",
            format!("Partition {} lies outside the area for partitions.", partition.index),
        ));
    }
    warnings
}

impl Layout {
    fn warn(&mut self, code: &'static str, message: impl Into<String>) {
        self.warnings.push(Warning::new(code, message));
    }

    /// Adds the logical partitions of an extended one. Of a damaged chain nobody knows what follows
    /// and whether it overlaps, so what was found is shown and not read.
    fn add_logical(&mut self, disk: &dyn ReadAt, sector_size: u64, extended: Slot) -> Result<()> {
        let found = self.volumes.iter().filter(|volume| volume.index > 4).count();
        let first = u32::try_from(found).ok().and_then(|found| found.checked_add(5));
        let first = first.ok_or_else(|| Error::internal("more logical partitions than are followed"))?;
        let logical = mbr::logical(disk, extended, sector_size, first)?;
        if let Some(damage) = logical.damage {
            self.warn(
                "ebr-damaged",
                format!("The chain of logical partitions is damaged: {damage}. They all count as in use."),
            );
        }
        for slot in logical.slots {
            let mut volume = mbr_volume(slot, sector_size);
            if logical.damage.is_some() {
                volume.opaque = Some("the chain of logical partitions is damaged".into());
            }
            self.volumes.push(volume);
        }
        self.own.extend(logical.records.iter().map(|at| bytes(at, sector_size)));
        Ok(())
    }

    /// Believes the layout, or distrusts it.
    fn settle(mut self, disk_size: u64, claims: &[Claim]) -> VolumeTable {
        self.clip(disk_size);
        sort(&mut self.volumes);
        let volumes = self.volumes.iter().flat_map(|volume| volume.segments.ranges().to_vec());
        if overlap(volumes.chain(self.own).collect()) {
            return distrust(OVERLAP, self.warnings);
        }
        let inside = |claim: &&Claim| self.volumes.iter().any(|v| covers(v, claim.offset));
        if let Some(claim) = claims.iter().find(|claim| !inside(claim)) {
            return distrust(
                format!(
                    "The disk has a partition table, and the bare disk also bears the signature of {} at \
                     offset {:#x}. One of them is a leftover, and it is unclear which (wipefs removes it).",
                    claim.name, claim.offset
                ),
                self.warnings,
            );
        }
        VolumeTable { volumes: self.volumes, warnings: self.warnings, distrust: None }
    }

    /// Cuts off what lies past the end of the disk. A file system that needs the rest says so.
    fn clip(&mut self, disk_size: u64) {
        let end = |volume: &Volume| volume.segments.ranges().last().map_or(0, |range| range.end);
        for volume in self.volumes.iter_mut().filter(|volume| end(volume) > disk_size) {
            self.warnings.push(Warning::new(
                "partition-past-end",
                format!("Partition {} reaches past the end of the disk.", volume.index),
            ));
            volume.segments = Segments::single(volume.segments.start()..disk_size);
        }
        self.volumes.retain(|volume| !volume.segments.is_empty());
    }
}

#[cfg(test)]
mod tests;
