//! Findings: what a scan found, as bytes that a host may keep, so that a repeat starts where it stopped.
//!
//! ```text
//!   "VCF2" │ fingerprint 16 │ next block 8 │ tally 5×8 │ done 8 │ flags 8 │ states 2 bits a block │ digest 16
//! ```
//! The fingerprint covers everything the scan depends on but the payload itself: the options, the
//! block tables, what is free, and what the host knows of the files (sizes and times). Findings with
//! another fingerprint, or whose bytes are damaged, are not used; and what is made of findings is
//! verified against the source like everything else. So the digest need only tell chance apart, and the one of the
//! standard library serves, twice over: a larger one would cost each visitor of the page six kilobytes.

use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;

use super::plan::{Decision, Plan};
use super::scan::{Scan, Tally};
use crate::error::{Error, Result};
use crate::units::len64;

const MAGIC: &[u8; 4] = b"VCF2";
const DIGEST: usize = 16;
/// Magic, fingerprint, and eight numbers.
const HEADER: usize = 4 + DIGEST + 8 * 8;

/// Two digests of 64 bits; what the second one begins with sets it apart.
struct Digest([DefaultHasher; 2]);

impl Default for Digest {
    fn default() -> Self {
        let [first, mut second] = [DefaultHasher::new(), DefaultHasher::new()];
        second.write_u8(1);
        Self([first, second])
    }
}

impl Digest {
    fn update(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|hasher| hasher.write(bytes));
    }

    fn finish(&self) -> [u8; DIGEST] {
        let [first, second] = &self.0;
        (u128::from(first.finish()) << 64 | u128::from(second.finish())).to_le_bytes()
    }
}

fn digest_of(bytes: &[u8]) -> [u8; DIGEST] {
    let mut digest = Digest::default();
    digest.update(bytes);
    digest.finish()
}

/// Identifies the scan of `plan`; `files` is what the host knows of the files: names, sizes, times.
///
/// # Errors
/// None in practice.
pub fn fingerprint(plan: &Plan, files: &str) -> Result<[u8; DIGEST]> {
    let mut hasher = Digest::default();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(format!("{files:?} {:?} {:?}", plan.options, plan.target).as_bytes());
    for image in plan.disk().layers() {
        hasher.update(image.identity.as_bytes());
        hasher.update(format!("{:?} {}", image.geometry, image.container.file_size()).as_bytes());
        let mut block = image.blocks.next_known(0);
        while let Some(at) = block {
            let end = image.blocks.stretch_end(at);
            hasher.update(&at.to_le_bytes());
            hasher.update(&end.to_le_bytes());
            hasher.update(format!("{:?}", image.blocks.get(at)).as_bytes());
            block = image.blocks.next_known(end);
        }
    }
    for range in plan.free.ranges() {
        hasher.update(&range.start.to_le_bytes());
        hasher.update(&range.end.to_le_bytes());
    }
    Ok(hasher.finish())
}

/// What `scan` has found so far.
#[must_use]
pub fn save(scan: &Scan, fingerprint: &[u8; DIGEST]) -> Vec<u8> {
    let tally = scan.tally();
    let flags = u64::from(scan.reads_changed()) | u64::from(scan.readings_differ()) << 1;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(fingerprint);
    let numbers = [
        scan.settled_up_to(),
        tally.kept,
        tally.absent,
        tally.zero,
        tally.free,
        tally.equal_to_parent,
        scan.progress().done,
        flags,
    ];
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for word in scan.out().words() {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let digest = digest_of(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// The scan of `plan` as far as `bytes` tell of it; none where they are another scan's, or damaged.
///
/// # Errors
/// As [`Scan::new`].
pub fn resume(plan: &Rc<Plan>, fingerprint: &[u8; DIGEST], bytes: &[u8]) -> Result<Option<Scan>> {
    let Some((body, digest)) = bytes.split_last_chunk::<DIGEST>() else { return Ok(None) };
    let Some((header, states)) = body.split_first_chunk::<HEADER>() else { return Ok(None) };
    let (words, odd) = states.as_chunks::<8>();
    if digest_of(body) != *digest || !header.starts_with(MAGIC) || !odd.is_empty() {
        return Ok(None);
    }
    let (_, rest) = header.split_at_checked(MAGIC.len()).ok_or_else(|| Error::internal("findings"))?;
    let (found, numbers) = rest.split_at_checked(DIGEST).ok_or_else(|| Error::internal("findings"))?;
    if found != fingerprint || len64(words.len()) != plan.target.blocks.div_ceil(32) {
        return Ok(None);
    }
    let (numbers, _) = numbers.as_chunks::<8>();
    let &[next, kept, absent, zero, free, equal_to_parent, done, flags] = numbers else { return Ok(None) };
    let number = u64::from_le_bytes;
    let tally = Tally {
        kept: number(kept),
        absent: number(absent),
        zero: number(zero),
        free: number(free),
        equal_to_parent: number(equal_to_parent),
    };
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let mut scan = Scan::new(plan)?;
    scan.restore(words, plan.next_stored(number(next)), tally, number(done), number(flags));
    Ok(agrees(&scan, plan).then_some(scan))
}

/// Whether the states that were restored are ones that this plan could have led to.
fn agrees(scan: &Scan, plan: &Plan) -> bool {
    let mut block = scan.out().first_known(0..plan.target.blocks);
    while let Some(at) = block {
        // What nothing is stored of is marked from the first step on.
        let is_due = at < scan.settled_up_to() || plan.decision(at) == Decision::Void;
        if !is_due || plan.decision(at) == Decision::Absent {
            return false;
        }
        block = at.checked_add(1).and_then(|next| scan.out().first_known(next..plan.target.blocks));
    }
    true
}
