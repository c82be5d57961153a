//! What tests ask of a volume that was looked at, whatever its file system.

use super::{Decline, DeclineReason, Detected, FreeMap, Mapping};

impl Detected {
    /// The map of a volume that must be mapped.
    #[track_caller]
    pub(super) fn into_map(self) -> FreeMap {
        match self.mapping {
            Mapping::Mapped(map) => map,
            Mapping::Declined(decline) => panic!("declined: {decline:?}"),
        }
    }

    /// Why a volume is declined that must be.
    #[track_caller]
    pub(super) fn into_decline(self) -> Decline {
        match self.mapping {
            Mapping::Declined(decline) => decline,
            Mapping::Mapped(map) => panic!("mapped: {map:?}"),
        }
    }
}

impl Decline {
    /// It is for this reason, in words with `what` in them, and says where.
    #[track_caller]
    pub(super) fn is_for(&self, reason: DeclineReason, what: &str) {
        assert_eq!(self.reason, reason, "{self:?}");
        assert!(self.detail.contains(what) && self.site.is_some(), "{self:?}");
    }
}
