//! Analysis: the disk, its volumes, and what of them is free. Reads metadata only.

use std::rc::Rc;

use super::options::{Mode, Options};
use crate::error::{Result, Warning};
use crate::extents::Extents;
use crate::fs::{self, Context, Decline, DeclineReason, Detected, Mapping, Request};
use crate::image::{self, Candidate, Disk, Image};
use crate::io::{ReadAt, Window};
use crate::volume::{self, Volume, VolumeTable};

/// A file that a person gave.
pub struct Input {
    /// Its bytes.
    pub file: Rc<dyn ReadAt>,
    /// Its name, for messages.
    pub name: String,
    /// When it was last modified, in seconds since 2000-01-01 UTC, where the host knows.
    pub modified: Option<u32>,
}

/// One volume and what is known of it.
pub struct VolumeFindings {
    /// Where it is.
    pub volume: Volume,
    /// What it holds.
    pub detected: Detected,
}

/// Everything that is known of an image before any payload is read.
pub struct Analysis {
    /// The virtual disk.
    pub disk: Disk,
    /// For each layer of the disk, which of the files it is: 0 the image, 1 the first parent as given, …
    pub files: Vec<usize>,
    /// Its volumes, ascending.
    pub volumes: Vec<VolumeFindings>,
    /// What is odd about the links of its chain and about its partition tables.
    pub warnings: Vec<Warning>,
}

impl Analysis {
    /// Opens `image` with the parents among `parents`, in any order, and looks at its file systems.
    ///
    /// # Errors
    /// What opening gives. File systems never fail: they decline.
    pub fn open(image: Input, parents: Vec<Input>) -> Result<Self> {
        let child = image::open(image.file)?;
        let mut candidates = Vec::new();
        for parent in parents {
            candidates.push(Candidate {
                image: image::open(parent.file).map_err(|error| error.about(&parent.name))?,
                name: parent.name,
                modified: parent.modified,
            });
        }
        let chain = image::assemble(child, candidates)?;
        let mut analysis = Self::of(Disk::new(chain.layers)?)?;
        analysis.files = chain.files;
        analysis.warnings.splice(0..0, chain.warnings);
        Ok(analysis)
    }

    /// Looks at the file systems of a disk.
    ///
    /// # Errors
    /// None in practice.
    pub fn of(disk: Disk) -> Result<Self> {
        let sector_size = disk.top()?.geometry.logical_sector_size;
        let mut warnings = Vec::new();
        let mut volumes = Vec::new();
        // Without its parents nobody knows what a child's file systems read.
        let table = if disk.is_complete() {
            volume::enumerate(&disk, sector_size)
        } else {
            Ok(VolumeTable::default())
        };
        match table {
            Ok(table) => {
                warnings.extend(table.warnings);
                if let Some(reason) = table.distrust {
                    warnings.push(Warning::new("partitions-distrusted", reason));
                } else {
                    for volume in table.volumes {
                        let detected = look_at(&disk, &volume, sector_size);
                        volumes.push(VolumeFindings { volume, detected });
                    }
                }
            }
            Err(error) => warnings.push(Warning::new(
                "partitions-unreadable",
                format!("The partition table cannot be read, so only zeros can be dropped: {error}"),
            )),
        }
        let files = (0..disk.layers().len()).collect();
        Ok(Self { disk, files, volumes, warnings })
    }

    /// The image itself.
    ///
    /// # Errors
    /// None in practice.
    pub fn top(&self) -> Result<&Image> {
        self.disk.top()
    }

    /// The disk bytes that count as free under `options`.
    ///
    /// # Errors
    /// None in practice.
    pub fn free(&self, options: &Options) -> Result<Extents> {
        if options.mode == Mode::Zero {
            return Ok(Extents::new());
        }
        let mut ranges = Vec::new();
        for findings in &self.volumes {
            for part in findings.granted(options) {
                // What reaches past its volume is cut off there.
                ranges.extend_from_slice(findings.volume.segments.extents_on_disk(part)?.ranges());
            }
        }
        Ok(Extents::from_ranges(ranges))
    }
}

impl VolumeFindings {
    /// The parts of this volume (volume offsets) that count as free under `options`.
    fn granted<'a>(&'a self, options: &'a Options) -> impl Iterator<Item = &'a Extents> + 'a {
        let map = match &self.detected.mapping {
            Mapping::Mapped(map) => Some(map),
            Mapping::Declined(_) => None,
        };
        map.into_iter().flat_map(|map| {
            let granted = map.on_request.iter().filter(|(request, _)| options.grants(*request));
            std::iter::once(&map.free).chain(granted.map(|(_, extents)| extents))
        })
    }

    /// How many bytes of this volume `request` would make free.
    #[must_use]
    pub fn requestable(&self, request: Request) -> u64 {
        match &self.detected.mapping {
            Mapping::Mapped(map) => {
                let matching = map.on_request.iter().filter(|(r, _)| *r == request);
                matching.map(|(_, extents)| extents.total()).fold(0, u64::saturating_add)
            }
            Mapping::Declined(_) => 0,
        }
    }
}

fn look_at(disk: &Disk, volume: &Volume, sector_size: u32) -> Detected {
    if let Some(reason) = &volume.opaque {
        let decline =
            Decline::new(DeclineReason::NotSupported, format!("Nothing is read here, because {reason}."));
        return Detected::declined("unknown", None, decline);
    }
    let window = match Window::new(disk, volume.segments.clone()) {
        Ok(window) => window,
        Err(error) => {
            let decline = Decline::new(DeclineReason::Unreadable, error.to_string());
            return Detected::declined("unknown", None, decline);
        }
    };
    disk.take_ambiguity();
    let mut detected = fs::detect(&window, Context { sector_size });
    if disk.take_ambiguity() {
        detected.mapping = Mapping::Declined(Decline::new(
            DeclineReason::Inconsistent,
            "The image's sector bitmaps say that parts of this file system were never written, and yet they hold data. \
             Programs read them differently, so nothing of it is taken for free.",
        ));
    }
    detected
}
