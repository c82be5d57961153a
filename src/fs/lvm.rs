//! What is left of a physical volume of LVM beside its logical volumes.
//!
//! LVM has no map of free extents: free is what no logical volume has, in metadata that is understood to its
//! last word ([`crate::volume::lvm`]). The owners that lie in this rest are LVM's own structures.

use super::{Detected, FreeMap, Owner, OwnerWalk, Purpose, Stop, Witness};
use crate::error::Site;
use crate::io::ReadAt;
use crate::units::{Progress, Space};
use crate::volume::lvm::Rest;

/// The rest of a physical volume, of `size` bytes.
pub(super) fn detected(rest: &Rest, size: u64) -> Detected {
    let free = rest.unallocated.clone();
    let free_bytes = free.total();
    let outcome = size.checked_sub(free_bytes).ok_or_else(|| {
        crate::error::Error::internal("more unallocated extents than the physical volume has").into()
    });
    let outcome = outcome.map(|used_bytes| {
        let map = FreeMap { free, free_bytes, used_bytes, spans: size, on_request: Vec::new() };
        (map, Structures(rest.clone()).boxed())
    });
    Detected::new("LVM2", Some(rest.group.clone()), outcome, Vec::new())
}

/// The walk over LVM's own structures.
#[derive(Debug)]
struct Structures(Rest);

impl OwnerWalk for Structures {
    fn step(&mut self, _: &dyn ReadAt, witness: &mut Witness<'_>, _: u64) -> Result<Progress, Stop> {
        witness.looked_at(self.0.logical_volumes)?;
        for range in &self.0.structures {
            let site = Site { structure: "LVM metadata", space: Space::Volume, offset: range.start };
            let owner = || Owner { name: "LVM's own metadata".into(), site: Some(site) };
            witness.owns(Purpose::Structure, range.clone(), owner)?;
        }
        Ok(Progress::FINISHED)
    }

    fn remedy(&self) -> &'static str {
        "run `vgck --updatemetadata`"
    }
}
