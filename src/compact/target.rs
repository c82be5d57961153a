//! The target: format, disk type and block size of the new image, and the writer that lays it out.

use uuid::Uuid;

use super::options::{BlockSizeChoice, Mode, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{
    BlockSize, ContainerWriter, Disk, DiskType, Format, Image, Metadata, ParentLink, vhd, vhdx,
};

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Container format.
    pub format: Format,
    /// Dynamic or differencing.
    pub disk_type: DiskType,
    /// Bytes of a block.
    pub block_size: BlockSize,
    /// The size of the disk as a guest sees it in the new image.
    pub virtual_size: u64,
    /// Bytes of the disk that the new image addresses.
    pub addressable_size: u64,
    /// How many blocks that is.
    pub blocks: u64,
    /// Whether stored blocks are stored blocks of the source, byte for byte: same format, type and
    /// block size. Otherwise each is composed anew.
    pub same_blocks: bool,
}

impl Target {
    /// What `options` make of `disk`: one target, or two of different block sizes, the one nearest to the
    /// source's first, of which the plan takes the one that gives the smaller file.
    ///
    /// # Errors
    /// `wrong-image-type` for a fixed image without leave to make it dynamic; `needs-parent` for
    /// flattening an incomplete chain; `invalid-argument` or `unsupported` for what cannot be made.
    pub fn resolve(disk: &Disk, options: &Options) -> Result<(Self, Option<Self>)> {
        let top = disk.top();
        let format = options.format.unwrap_or(top.format);
        let disk_type = disk_type(disk, top, options)?;
        check_format(top, format)?;
        let target = |block_size| Self::new(top, format, disk_type, block_size);
        let nearest = if format == top.format && top.disk_type != DiskType::Fixed {
            // Also one that no new image would be given: blocks that stay what they are cost no thought.
            top.geometry.block_size
        } else {
            format.description().nearest_block_size(top.geometry.block_size)
        };
        match options.block_size {
            BlockSizeChoice::Exactly(asked) => Ok((target(check_block_size(top, format, asked)?)?, None)),
            BlockSizeChoice::Keep => Ok((target(nearest)?, None)),
            BlockSizeChoice::Smallest => {
                let smallest = format.description().smallest_usual_block;
                let settled =
                    disk_type == DiskType::Differencing || options.mode == Mode::Zero || nearest <= smallest;
                // A fixed disk has no blocks that could stay what they are.
                let first = if top.disk_type == DiskType::Fixed { nearest.min(smallest) } else { nearest };
                Ok((
                    target(first)?,
                    if settled || first == smallest { None } else { Some(target(smallest)?) },
                ))
            }
        }
    }

    fn new(top: &Image, format: Format, disk_type: DiskType, block_size: BlockSize) -> Result<Self> {
        let recast = format != top.format || block_size != top.geometry.block_size;
        if disk_type == DiskType::Differencing && recast {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a differencing disk keeps its format and block size, which its parent shares; flatten the chain to \
                 change them",
            ));
        }
        let addressable_size = top.geometry.addressable_size;
        // In another format there is one size only: the larger, so that no reader's byte is lost.
        let virtual_size = if format == top.format { top.geometry.virtual_size } else { addressable_size };
        Ok(Self {
            format,
            disk_type,
            block_size,
            virtual_size,
            addressable_size,
            blocks: block_size.count_for(addressable_size),
            same_blocks: !recast && disk_type == top.disk_type,
        })
    }

    /// The writer of this target. Identity follows what is read: also a merged chain reads as its child
    /// did, so it keeps the child's identifiers and is still the parent of the child's own children. With
    /// `reads_changed`, a VHDX gets a new data write GUID, so that they do not take the new image for their
    /// parent. A VHD has one identifier for all: it stays, since virtual machines know the disk by it, and
    /// the person must be told.
    ///
    /// # Errors
    /// What the format's writer refuses.
    pub fn writer(
        &self,
        source: &Image,
        reads_changed: bool,
        fresh: &Fresh,
    ) -> Result<Box<dyn ContainerWriter>> {
        let geometry = &source.geometry;
        let guids = vhdx::Guids {
            file_write: fresh.file_write,
            data_write: fresh.data_write,
            virtual_disk: fresh.disk,
        };
        Ok(match (self.format, &source.metadata) {
            (Format::Vhd, Metadata::Vhd(metadata)) => {
                Box::new(vhd::Writer::like(metadata, self.addressable_size, self.block_size, self.disk_type)?)
            }
            (Format::Vhd, Metadata::Vhdx(_)) => Box::new(vhd::Writer::new(
                self.addressable_size,
                self.block_size,
                fresh.disk,
                fresh.time_stamp,
            )?),
            (Format::Vhdx, Metadata::Vhdx(metadata)) => Box::new(vhdx::Writer::like(
                metadata,
                geometry,
                self.disk_type,
                self.block_size,
                &guids,
                reads_changed,
            )?),
            (Format::Vhdx, Metadata::Vhd(_)) => Box::new(vhdx::Writer::new(
                self.addressable_size,
                geometry.logical_sector_size,
                geometry.physical_sector_size,
                self.block_size,
                &guids,
            )?),
        })
    }
}

/// What is new in a new image: random identifiers and the time. The host gives them, so that a
/// layout is a pure function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fresh {
    /// VHDX FileWriteGuid.
    pub file_write: Uuid,
    /// VHDX DataWriteGuid, where reads change.
    pub data_write: Uuid,
    /// The disk's own identifier, where the source has none of its kind.
    pub disk: Uuid,
    /// Seconds since 2000-01-01 UTC.
    pub time_stamp: u32,
}

fn disk_type(disk: &Disk, top: &Image, options: &Options) -> Result<DiskType> {
    match top.disk_type {
        DiskType::Dynamic => Ok(DiskType::Dynamic),
        DiskType::Fixed if options.to_dynamic => Ok(DiskType::Dynamic),
        DiskType::Fixed => Err(Error::new(
            ErrorKind::WrongImageType,
            "this is a fixed disk, which always has its full size; it can become a dynamic one, which is only as large \
             as what it holds, if you ask for that. Azure runs only fixed VHDs of whole MiB: for it, a dynamic result is \
             made fixed again on the way up (qemu-img convert -O vpc -o subformat=fixed,force_size, or Convert-VHD)",
        )),
        DiskType::Differencing
            if disk.missing_parent().is_some_and(|parent| parent.is_raw) && options.flatten =>
        {
            Err(Error::new(
                ErrorKind::Unsupported,
                "XenServer made this differencing disk from a raw disk, which is not read here: it can be compacted, \
                 and not merged",
            ))
        }
        DiskType::Differencing if options.flatten && !disk.is_complete() => {
            let missing = disk.missing_parent().map(ParentLink::describe).unwrap_or_default();
            Err(Error::new(
                ErrorKind::NeedsParent,
                format!(
                    "this is a differencing disk; to merge it with its parents, all of them must be given, and \
                     {missing} is missing"
                ),
            ))
        }
        DiskType::Differencing if options.flatten => Ok(DiskType::Dynamic),
        DiskType::Differencing => Ok(DiskType::Differencing),
    }
}

fn check_format(top: &Image, format: Format) -> Result<()> {
    let limits = format.description();
    let sector_size = top.geometry.logical_sector_size;
    if !limits.logical_sector_sizes.contains(&sector_size) {
        let message = format!("a {} has no sectors of {sector_size} bytes", limits.title);
        return Err(Error::new(ErrorKind::Unsupported, message).expected(512, sector_size));
    }
    if top.geometry.addressable_size > limits.max_disk_size {
        let message = format!(
            "a {} that is not fixed holds disks of up to {} GiB; another format may hold more",
            limits.title,
            limits.max_disk_size >> 30
        );
        return Err(Error::new(ErrorKind::Unsupported, message).expected(
            format_args!("at most {} bytes", limits.max_disk_size),
            top.geometry.addressable_size,
        ));
    }
    Ok(())
}

fn check_block_size(top: &Image, format: Format, asked: u64) -> Result<BlockSize> {
    let limits = format.description();
    let stays = format == top.format && asked == top.geometry.block_size.get();
    if stays && top.disk_type != DiskType::Fixed {
        return Ok(top.geometry.block_size);
    }
    if format == Format::Vhd && top.is_xenserver() && asked != BlockSize::MIB_2.get() {
        let message = "XenServer and XCP-ng accept only blocks of 2 MiB, and this image is one of theirs";
        return Err(Error::new(ErrorKind::InvalidArgument, message).expected("2M", asked));
    }
    limits.block_size(asked).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, "this block size cannot be made")
            .expected(format_args!("{} for a {}", limits.block_sizes_in_words(), limits.title), asked)
    })
}
