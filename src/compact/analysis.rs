//! Analysis: the disk, its volumes, and what of them is free. Reads metadata only.
//!
//! ```text
//!   files ──► Disk ──► volumes ──► one Detected a volume     at once: good for an estimate
//!                                      └─ hear_step ──────►  the second witness: needed before anything goes
//! ```

use std::ops::Range;
use std::rc::Rc;

use super::options::{Mode, Options};
use crate::error::{Error, Result, Warning};
use crate::extents::Extents;
use crate::fs::{self, Context, Decline, DeclineReason, Detected, Mapping, Request, Stop};
use crate::image::{self, Candidate, Disk, DiskReader, Image, ParentTrust};
use crate::io::{ReadAt, Window};
use crate::units::{Progress, add, length};
use crate::volume::{self, Volume, VolumeTable};

/// A file that a person gave.
#[derive(Clone)]
pub struct Input {
    /// Its bytes.
    pub file: Rc<dyn ReadAt>,
    /// Its name, for messages.
    pub name: String,
    /// When it was last modified, in seconds since 2000-01-01 UTC, where the host knows.
    pub modified: Option<u32>,
}

/// One volume and what is known of it.
#[derive(Debug)]
pub struct VolumeFindings {
    /// Where it is.
    pub volume: Volume,
    /// What it holds.
    pub detected: Detected,
    /// Bytes of reading that its second witness took so far.
    heard: Progress,
}

/// How far a file system may end before its partition without a word: rounding to clusters, backup sectors.
const ORDINARY_TAIL: u64 = 1 << 20;

impl VolumeFindings {
    /// What of the volume (volume offsets) lies behind the end of its file system, if that is worth a word.
    #[must_use]
    pub fn behind_end(&self) -> Option<Range<u64>> {
        let Mapping::Mapped(map) = &self.detected.mapping else { return None };
        let behind = map.spans..self.volume.segments.len();
        (length(&behind) > ORDINARY_TAIL).then_some(behind)
    }
}

/// Everything that is known of an image before any payload is read.
pub struct Analysis {
    disk: Disk,
    /// For each layer of the disk, which of the files it is.
    files: Vec<usize>,
    /// The size of the image's own file, in bytes.
    file_size: u64,
    volumes: Vec<VolumeFindings>,
    /// Whether programs read the partition table differently.
    table_is_ambiguous: bool,
    warnings: Vec<Warning>,
}

impl Analysis {
    /// Opens `image` with the parents among `parents`, in any order, and looks at its file systems.
    ///
    /// # Errors
    /// What opening gives. File systems never fail: they decline.
    pub fn open(image: Input, parents: Vec<Input>) -> Result<Self> {
        Self::open_trusting(image, parents, ParentTrust::default())
    }

    /// As [`Analysis::open`], with what it takes for a parent to be believed.
    ///
    /// # Errors
    /// What opening gives. File systems never fail: they decline.
    pub fn open_trusting(image: Input, parents: Vec<Input>, trust: ParentTrust) -> Result<Self> {
        let child = image::open(image.file)?;
        let mut candidates = Vec::new();
        for parent in parents {
            candidates.push(Candidate {
                image: image::open(parent.file).map_err(|error| error.about(&parent.name))?,
                name: parent.name,
                modified: parent.modified,
            });
        }
        let chain = image::assemble(child, candidates, trust)?;
        let mut analysis = Self::of(Disk::of_layers(chain.layers)?, chain.files);
        analysis.warnings.splice(0..0, chain.warnings);
        Ok(analysis)
    }

    /// Looks at the file systems of a disk; `files` tells for each of its layers which of the files that
    /// were given it is: 0 the image, 1 the first parent as given, …
    #[must_use]
    pub fn of(disk: Disk, files: Vec<usize>) -> Self {
        let mut warnings = Vec::new();
        let mut volumes = Vec::new();
        let mut table_is_ambiguous = false;
        match find_volumes(&disk, &mut table_is_ambiguous) {
            Ok(table) => {
                warnings.extend(table.warnings);
                match table.distrust {
                    Some(reason) => warnings.push(Warning::new("partitions-distrusted", reason)),
                    None => {
                        let found =
                            table.volumes.into_iter().map(|volume| VolumeFindings::new(&disk, volume));
                        volumes.extend(found);
                    }
                }
            }
            Err(error) => warnings.push(Warning::new(
                "partitions-unreadable",
                format!("The partition table cannot be read, so only zeros can be dropped: {error}"),
            )),
        }
        let file_size = disk.top().container.file_size();
        Self { disk, files, file_size, volumes, table_is_ambiguous, warnings }
    }

    /// A disk of which `free` is free, as if a file system over all of it had said so.
    #[cfg(test)]
    pub(super) fn with_free(disk: Disk, files: Vec<usize>, free: Extents) -> Self {
        let mapping = Mapping::Mapped(fs::FreeMap { free, spans: disk.size(), ..fs::FreeMap::default() });
        let range = 0..disk.size();
        // Without its parents nobody knows what a child's file systems read.
        let volumes = disk.is_complete().then_some((range, "made up", volume::Scheme::Whole, mapping, ""));
        Self::made_up(disk, files, volumes.into_iter().collect())
    }

    /// A disk with volumes that a test makes up: place, file system, scheme, what is known, label.
    #[cfg(test)]
    pub(super) fn made_up(
        disk: Disk,
        files: Vec<usize>,
        volumes: Vec<(std::ops::Range<u64>, &'static str, volume::Scheme, Mapping, &str)>,
    ) -> Self {
        let file_size = disk.top().container.file_size();
        let findings = |(index, (range, name, scheme, mapping, label)): (u32, (_, _, _, Mapping, &str))| {
            let hearing = match &mapping {
                Mapping::Mapped(_) => fs::Hearing::Agrees(fs::Testimony::default()),
                Mapping::Declined(_) => fs::Hearing::NotNeeded,
            };
            let label = (!label.is_empty()).then(|| label.to_owned());
            let volume = Volume {
                scheme,
                index,
                segments: crate::io::Segments::single(range),
                kind: "made up".into(),
                name: None,
                opaque: None,
                rest_of_lvm: None,
            };
            let detected = Detected { name, label, mapping, warnings: Vec::new(), hearing, structures: None };
            VolumeFindings { volume, detected, heard: Progress::default() }
        };
        let volumes = (1..).zip(volumes).map(findings).collect();
        Self { disk, files, file_size, volumes, table_is_ambiguous: false, warnings: Vec::new() }
    }

    /// The volumes, for a test to say more of them.
    #[cfg(test)]
    pub(super) fn volumes_mut(&mut self) -> &mut [VolumeFindings] {
        &mut self.volumes
    }

    /// The virtual disk.
    #[must_use]
    pub const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The image itself.
    #[must_use]
    pub fn top(&self) -> &Image {
        self.disk.top()
    }

    /// The size of the image's own file, in bytes.
    #[must_use]
    pub const fn file_size(&self) -> u64 {
        self.file_size
    }

    /// The volumes, ascending.
    #[must_use]
    pub fn volumes(&self) -> &[VolumeFindings] {
        &self.volumes
    }

    /// Whether programs read the partition table differently, so that no volume was looked for.
    #[must_use]
    pub const fn is_table_ambiguous(&self) -> bool {
        self.table_is_ambiguous
    }

    /// What is odd about the links of its chain and about its partition tables.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Which of the files that were given holds a layer of the disk.
    ///
    /// # Errors
    /// `internal` for a layer that is not there.
    pub fn file_of(&self, layer: usize) -> Result<usize> {
        self.files.get(layer).copied().ok_or_else(|| Error::internal("a layer without a file"))
    }

    /// Whether the second witness of some volume is still to be heard. Until then the free space is good
    /// for an estimate, and for nothing else.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.volumes.iter().any(|findings| findings.detected.is_pending())
    }

    /// Hears the second witnesses for about `budget` bytes of reading. Where one contradicts the map of
    /// its volume, the volume is declined.
    ///
    /// # Errors
    /// `limit-exceeded` where the sum of what is to be read does not fit 64 bits.
    pub fn hear_step(&mut self, budget: u64) -> Result<Progress> {
        let next = self.volumes.iter_mut().find(|findings| findings.detected.is_pending());
        if let Some(findings) = next {
            findings.hear(&self.disk, budget);
        }
        let mut progress = Progress { finished: !self.is_pending(), ..Progress::default() };
        for VolumeFindings { heard, .. } in &self.volumes {
            progress.done = add(progress.done, heard.done, "what the witnesses read")?;
            progress.total = add(progress.total, heard.total, "what the witnesses read")?;
        }
        Ok(progress)
    }

    /// Hears the second witnesses to the end.
    ///
    /// # Errors
    /// As [`Analysis::hear_step`].
    pub fn hear(mut self) -> Result<Self> {
        while !self.hear_step(u64::MAX)?.finished {}
        Ok(self)
    }

    /// The disk bytes that count as free under `options`.
    ///
    /// # Errors
    /// None in practice.
    pub fn free(&self, options: &Options) -> Result<Extents> {
        // Zero mode believes no file system.
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

    /// The disk bytes of file systems whose free space is known: what lies behind the end of one in its volume is
    /// not among them.
    ///
    /// # Errors
    /// As [`Segments::resolve`](crate::io::Segments::resolve).
    pub fn mapped(&self) -> Result<Extents> {
        let mut ranges = Vec::new();
        for findings in self.volumes.iter().filter(|v| matches!(v.detected.mapping, Mapping::Mapped(_))) {
            let segments = &findings.volume.segments;
            let end = findings.behind_end().map_or(segments.len(), |behind| behind.start);
            segments.resolve(0..end, &mut |part| {
                ranges.push(part);
                Ok(())
            })?;
        }
        Ok(Extents::from_ranges(ranges))
    }
}

/// The volumes of a disk. Without its parents nobody knows what a child's file systems read; and a
/// partition table that programs read differently is not believed.
fn find_volumes(disk: &Disk, is_ambiguous: &mut bool) -> Result<VolumeTable> {
    if !disk.is_complete() {
        return Ok(VolumeTable::default());
    }
    let reader = disk.reader();
    let table = volume::enumerate(&reader, disk.top().geometry.logical_sector_size)?;
    *is_ambiguous = reader.met_ambiguity();
    if *is_ambiguous {
        let distrust =
            format!("{UNWRITTEN_DATA} The partition table is a part of that, so it is not believed.");
        return Ok(VolumeTable { distrust: Some(distrust), ..VolumeTable::default() });
    }
    Ok(table)
}

const UNWRITTEN_DATA: &str = "The image's sector bitmaps say that parts of this disk were never written, and yet they \
                              hold data. Programs read them differently.";

impl VolumeFindings {
    fn new(disk: &Disk, volume: Volume) -> Self {
        let detected = match &volume.opaque {
            Some(reason) => Detected::declined(
                "unknown",
                None,
                Decline::new(DeclineReason::NotSupported, format!("Nothing is read here, because {reason}.")),
            ),
            None => {
                let context = Context { sector_size: disk.top().geometry.logical_sector_size };
                match window(disk, &volume) {
                    Ok(window) => {
                        let mut detected = fs::detect_in(&volume, &window, context);
                        if window.into_inner().met_ambiguity() {
                            detected.decline(ambiguous());
                        }
                        detected
                    }
                    Err(error) => Detected::declined("unknown", None, Stop::from(error).into_decline()),
                }
            }
        };
        Self { volume, detected, heard: Progress::default() }
    }

    fn hear(&mut self, disk: &Disk, budget: u64) {
        match window(disk, &self.volume) {
            Ok(window) => {
                self.heard = self.detected.hear(&window, budget);
                if window.into_inner().met_ambiguity() {
                    self.detected.decline(ambiguous());
                }
            }
            Err(error) => self.detected.decline(Stop::from(error).into_decline()),
        }
    }

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
                Extents::from_ranges(matching.flat_map(|(_, extents)| extents.ranges().to_vec()).collect())
                    .total()
            }
            Mapping::Declined(_) => 0,
        }
    }
}

fn window<'d>(disk: &'d Disk, volume: &Volume) -> Result<Window<DiskReader<'d>>> {
    Window::new(disk.reader(), volume.segments.clone())
}

fn ambiguous() -> Decline {
    Decline::new(
        DeclineReason::Ambiguous,
        format!("{UNWRITTEN_DATA} This file system is a part of that, so nothing of it is taken for free."),
    )
}
