//! Cylinders, heads, sectors: which size of the disk a program believes.

use super::format::Footer;

/// The geometry that means "too large for a geometry": 65535 × 16 × 255 sectors.
const MAX_GEOMETRY: u64 = 65_535 * 16 * 255;

/// The size that the footer's geometry gives, in bytes.
pub fn chs_size(footer: &Footer) -> u64 {
    // At most 2³² sectors.
    sectors(footer).wrapping_mul(512)
}

fn sectors(footer: &Footer) -> u64 {
    // Fields of 16, 8 and 8 bits: the product has 32 at most.
    u64::from(footer.cylinders.get())
        .wrapping_mul(u64::from(footer.heads))
        .wrapping_mul(u64::from(footer.sectors_per_track))
}

/// The size of the disk for the footer's creator, in bytes: Virtual PC and early QEMU meant the
/// geometry, everybody since means Current Size (QEMU `block/vpc.c`; Windows, libvhdi and VirtualBox
/// take Current Size always).
pub fn disk_size(footer: &Footer) -> u64 {
    let creator = &footer.creator_application;
    let by_geometry =
        matches!(creator, b"vpc " | b"qemu") && sectors(footer) != 0 && sectors(footer) < MAX_GEOMETRY;
    if by_geometry { chs_size(footer) } else { footer.current_size.get() }
}

/// The geometry of a disk of `size` bytes (specification, appendix "CHS Calculation").
pub fn geometry_for(size: u64) -> (u16, u8, u8) {
    let sectors = (size / 512).min(MAX_GEOMETRY);
    let (per_track, heads, cylinder_heads) = if sectors >= 65_535 * 16 * 63 {
        (255, 16, sectors / 255)
    } else {
        let mut per_track = 17;
        let mut cylinder_heads = sectors / 17;
        let mut heads = cylinder_heads.div_ceil(1024);
        heads = heads.max(4);
        if cylinder_heads / 1024 >= heads || heads > 16 {
            per_track = 31;
            heads = 16;
            cylinder_heads = sectors / 31;
        }
        if cylinder_heads / 1024 >= heads {
            per_track = 63;
            heads = 16;
            cylinder_heads = sectors / 63;
        }
        (per_track, heads, cylinder_heads)
    };
    let cylinders = cylinder_heads.checked_div(heads).unwrap_or_default();
    (
        u16::try_from(cylinders).unwrap_or(u16::MAX),
        u8::try_from(heads).unwrap_or(16),
        u8::try_from(per_track).unwrap_or(255),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn footer(creator: &[u8; 4], chs: (u16, u8, u8), size: u64) -> Footer {
        let mut f = Footer::new_zeroed();
        f.creator_application = *creator;
        (f.cylinders, f.heads, f.sectors_per_track) = (chs.0.into(), chs.1, chs.2);
        f.current_size = size.into();
        f
    }

    #[test]
    fn the_creator_decides_which_size_counts() {
        let chs = (100, 4, 17);
        for (creator, expected) in [
            (b"vpc ", 100 * 4 * 17 * 512),
            (b"qemu", 100 * 4 * 17 * 512),
            (b"win ", 7),
            (b"qem2", 7),
            (b"vbox", 7),
        ] {
            assert_eq!(disk_size(&footer(creator, chs, 7)), expected);
        }
        assert_eq!(disk_size(&footer(b"vpc ", (65_535, 16, 255), 7)), 7);
        assert_eq!(disk_size(&footer(b"vpc ", (0, 0, 0), 7)), 7);
    }

    /// Values of the specification's own algorithm, worked by hand.
    #[test]
    fn geometry_follows_the_specification() {
        assert_eq!(geometry_for(4 << 20), (120, 4, 17));
        assert_eq!(geometry_for(1 << 30), (2080, 16, 63));
        assert_eq!(geometry_for(127 << 30), (65_278, 16, 255));
        assert_eq!(geometry_for(2040 << 30), (65_535, 16, 255));
    }
}
