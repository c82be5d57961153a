//! The proof: opens what was written, and takes nothing of it for granted.
//!
//! ```text
//!   output ──► its volumes, free maps and second witnesses ── the same as the source's?   (SecondLook)
//!          └─► every stored byte ── the source's, or proved free there?                   (Comparison)
//! ```
//! The first stands on other feet than the second: a comparison leaves out what the map calls free, so a map
//! that was wrong, or that was read wrongly, must show in something else.

use std::rc::Rc;

use super::analysis::{Analysis, Input, VolumeFindings};
use super::comparison::{Comparison, Terms, Verdict};
use super::layout::Layout;
use super::options::Options;
use super::trace::Tracer;
use crate::error::{Error, ErrorKind, Result, Site};
use crate::extents::Extents;
use crate::fs::{DeclineReason, Hearing, Mapping};
use crate::image::{self, Disk, DiskType, ParentTrust};
use crate::units::{Progress, Space, add};

/// Whether the host vouches for what stands in the file that it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It does not: every stored byte is read from both images and compared.
    Bytes,
    /// The file consists of the pieces of the layout, in their order: it was composed of ranges of the source,
    /// or each piece was read back and compared after it was written.
    Pieces,
}

/// A proof under way.
pub struct Proof {
    source: Rc<Analysis>,
    stage: Stage,
    looked: Progress,
}

enum Stage {
    Look(Box<Analysis>, Box<Terms>),
    Compare(Box<Comparison>),
    Between,
}

impl Proof {
    /// The proof that `output` is the new image of `layout`.
    ///
    /// # Errors
    /// What opening the output gives: it must be a valid image.
    pub fn of_layout(layout: &Rc<Layout>, output: Input, evidence: Evidence) -> Result<Self> {
        let plan = layout.plan();
        let source = plan.analysis();
        let opened = image::open(output.file)?;
        let disk = match plan.target.disk_type {
            DiskType::Differencing => Disk::new(opened, source.disk().parents().to_vec())?,
            DiskType::Dynamic | DiskType::Fixed => Disk::single(opened),
        };
        let files = (0..disk.layers().count()).collect();
        Ok(Self::new(Rc::clone(source), Analysis::of(disk, files), terms(layout, evidence)))
    }

    fn new(source: Rc<Analysis>, output: Analysis, terms: Terms) -> Self {
        let stage = Stage::Look(Box::new(output), Box::new(terms));
        Self { source, stage, looked: Progress::default() }
    }

    /// Goes on for about `budget` bytes of reading.
    ///
    /// # Errors
    /// `differs` at the first thing that is not as it was; read errors.
    pub fn step(&mut self, budget: u64) -> Result<Progress> {
        match std::mem::replace(&mut self.stage, Stage::Between) {
            Stage::Look(mut output, terms) => {
                self.looked = output.hear_step(budget)?;
                if !self.looked.finished {
                    self.stage = Stage::Look(output, terms);
                    return Ok(self.looked);
                }
                same_volumes(&self.source, &output)?;
                let comparison = Comparison::new(Rc::clone(&self.source), Rc::new(*output), *terms)?;
                self.stage = Stage::Compare(Box::new(comparison));
                Ok(Progress { finished: false, ..self.looked })
            }
            Stage::Compare(mut comparison) => {
                let progress = comparison.step(budget)?;
                self.stage = Stage::Compare(comparison);
                Ok(Progress {
                    done: add(self.looked.done, progress.done, "what was read")?,
                    total: add(self.looked.total, progress.total, "what is to be read")?,
                    ..progress
                })
            }
            Stage::Between => Err(Error::internal("a proof that had failed was continued")),
        }
    }

    /// What was found; complete once a step says so, none before bytes are compared.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        match &self.stage {
            Stage::Compare(comparison) => Some(comparison.verdict()),
            Stage::Look(..) | Stage::Between => None,
        }
    }
}

/// What is known beforehand of a layout's source and its new image.
pub(super) fn terms(layout: &Rc<Layout>, evidence: Evidence) -> Terms {
    let composed = evidence == Evidence::Pieces;
    Terms {
        may_differ: layout.may_differ(),
        same_bitmaps: !layout.plan().recomposes(),
        as_programs_read: layout.plan().recomposes(),
        seen_zero: if composed { layout.seen_zero().clone() } else { Extents::new() },
        tracer: composed.then(|| Tracer::new(layout)),
        bitmap_tracer: composed.then(|| Tracer::new(layout)),
    }
}

/// Whether the blocks of one image can be no copies of the other's.
fn was_recast(original: &Analysis, compacted: &Analysis) -> bool {
    let shape = |analysis: &Analysis| {
        let top = analysis.top();
        (top.format, top.disk_type, top.geometry.block_size)
    };
    shape(original) != shape(compacted)
}

/// A comparison of two images that a person gives: an original and its compacted image.
pub struct Verification {
    stage: VerificationStage,
}

enum VerificationStage {
    /// The original's second witnesses are heard first: they say where the images may differ.
    Hear(Box<Analysis>, Box<Analysis>, Options),
    Prove(Box<Proof>),
    Between,
}

impl Verification {
    /// Opens both images with their parents. They may differ in what the original's file systems prove free,
    /// and in what `options` give up.
    ///
    /// # Errors
    /// What opening gives.
    pub fn open(original: Input, compacted: Input, parents: Vec<Input>, options: Options) -> Result<Self> {
        let trust = ParentTrust::by_word(options.trust_parent);
        let original = Analysis::open_trusting(original, parents.clone(), trust)?;
        let has_parent = image::open(Rc::clone(&compacted.file))?.parent.is_some();
        let parents = if has_parent { parents } else { Vec::new() };
        let compacted = Analysis::open_trusting(compacted, parents, trust)?;
        Ok(Self { stage: VerificationStage::Hear(Box::new(original), Box::new(compacted), options) })
    }

    /// Goes on for about `budget` bytes of reading.
    ///
    /// # Errors
    /// As [`Proof::step`].
    pub fn step(&mut self, budget: u64) -> Result<Progress> {
        match std::mem::replace(&mut self.stage, VerificationStage::Between) {
            VerificationStage::Hear(mut original, compacted, options) => {
                let progress = original.hear_step(budget)?;
                self.stage = if progress.finished {
                    let terms = Terms {
                        may_differ: original.free(&options)?,
                        same_bitmaps: false,
                        as_programs_read: options.scrub || was_recast(&original, &compacted),
                        seen_zero: Extents::new(),
                        tracer: None,
                        bitmap_tracer: None,
                    };
                    VerificationStage::Prove(Box::new(Proof::new(Rc::new(*original), *compacted, terms)))
                } else {
                    VerificationStage::Hear(original, compacted, options)
                };
                Ok(Progress { finished: false, ..progress })
            }
            VerificationStage::Prove(mut proof) => {
                let progress = proof.step(budget)?;
                self.stage = VerificationStage::Prove(proof);
                Ok(progress)
            }
            VerificationStage::Between => Err(Error::internal("a comparison that had failed was continued")),
        }
    }

    /// What was found; complete once a step says so.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        match &self.stage {
            VerificationStage::Prove(proof) => proof.verdict(),
            VerificationStage::Hear(..) | VerificationStage::Between => None,
        }
    }
}

/// Checks that `output` holds the volumes of `source`, with the same verdicts and the same free space.
fn same_volumes(source: &Analysis, output: &Analysis) -> Result<()> {
    let (a, b) = (source.volumes(), output.volumes());
    // Where programs read the source differently nothing of it was believed; a new image that was composed
    // anew has one reading, so more of it may be.
    let ambiguous = |findings: &VolumeFindings| {
        matches!(&findings.detected.mapping,
        Mapping::Declined(decline) if decline.reason == DeclineReason::Ambiguous)
    };
    if source.is_table_ambiguous() {
        return Ok(());
    }
    if a.len() != b.len() {
        let error = Error::new(ErrorKind::Differs, "the new image does not hold the same volumes");
        return Err(error.expected(a.len(), b.len()));
    }
    for (x, y) in a.iter().zip(b) {
        if !ambiguous(x) {
            same_volume(x, y, source.disk())?;
        }
    }
    Ok(())
}

fn same_volume(x: &VolumeFindings, y: &VolumeFindings, source: &Disk) -> Result<()> {
    let site = Site { structure: "volume", space: Space::Disk, offset: x.volume.segments.start() };
    let differs = |what: &str, expected: String, found: String| {
        Err(Error::new(ErrorKind::Differs, format!("{what} of a volume in the new image is not what it was"))
            .at(site)
            .expected(expected, found))
    };
    // The new image may address more than the source did; a bare disk's volume then ends later.
    let end = source.top().geometry.addressable_size;
    let place = |v: &VolumeFindings| v.volume.segments.on_disk().within(0..end).collect::<Vec<_>>();
    if place(x) != place(y) {
        return differs("The place", format!("{:?}", place(x)), format!("{:?}", place(y)));
    }
    match (&x.detected.mapping, &y.detected.mapping) {
        (Mapping::Declined(a), Mapping::Declined(b)) if a.reason == b.reason => Ok(()),
        (Mapping::Mapped(a), Mapping::Mapped(b)) if a != b => differs(
            "The free space",
            format!("{} bytes in {} ranges", a.free.total(), a.free.ranges().len()),
            format!("{} bytes in {} ranges", b.free.total(), b.free.ranges().len()),
        ),
        (Mapping::Mapped(_), Mapping::Mapped(_)) => match (&x.detected.hearing, &y.detected.hearing) {
            (Hearing::Agrees(a), Hearing::Agrees(b)) if a == b => Ok(()),
            (a, b) => differs("What owns the space", format!("{a:?}"), format!("{b:?}")),
        },
        (a, b) => differs("The state", verdict_of(a), verdict_of(b)),
    }
}

fn verdict_of(mapping: &Mapping) -> String {
    match mapping {
        Mapping::Mapped(_) => "mapped".into(),
        Mapping::Declined(decline) => format!("declined as {}: {}", decline.reason.code(), decline.detail),
    }
}
