//! The container formats, one description each: what tells them apart above this layer.
//!
//! What reads, writes and offers formats (the command, the page, the estimate) takes it from here, so that
//! a fact about a format is told once. What only a format's own reader and writer need is in its folder.

use super::BlockSize;

/// A container format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Virtual Hard Disk, version 1.0 (`.vhd`).
    Vhd,
    /// Virtual Hard Disk v2 (`.vhdx`, `.avhdx`).
    Vhdx,
}

/// What is to be known of a format without opening a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDescription {
    /// Which format.
    pub format: Format,
    /// The name in JSON and options.
    pub name: &'static str,
    /// The name in sentences.
    pub title: &'static str,
    /// The extensions of its files, the usual one first.
    pub extensions: &'static [&'static str],
    /// The block sizes that a new image may have, ascending.
    pub block_sizes: &'static [BlockSize],
    /// The block size that saves most and that every program takes: what a new image has where nobody asks
    /// and the source's blocks are larger, or of another format.
    pub smallest_usual_block: BlockSize,
    /// The largest disk that a dynamic image holds, in bytes.
    pub max_disk_size: u64,
    /// The logical sector sizes that a disk may have.
    pub logical_sector_sizes: &'static [u32],
    /// Whether a block can be marked to read as zero whatever the parent holds.
    pub has_zero_marker: bool,
    /// What becomes of differencing children of an image once its free space reads differently: one
    /// sentence for a person.
    pub children_of_changed: &'static str,
}

/// The description of every format.
pub const FORMATS: [FormatDescription; 2] = [
    FormatDescription {
        format: Format::Vhd,
        name: "vhd",
        title: "VHD",
        extensions: &["vhd", "avhd"],
        // What Windows is tested with; nothing above 2 MiB is read by all programs.
        block_sizes: &[BlockSize::KIB_512, BlockSize::MIB_2],
        smallest_usual_block: BlockSize::MIB_2,
        // Specification, "Block Allocation Table and Data Blocks": what 32-bit sector numbers address, with
        // room for the bitmaps. Windows and QEMU have the same limit.
        max_disk_size: 2040 << 30,
        logical_sector_sizes: &[512],
        has_zero_marker: false,
        children_of_changed: "No program will notice, since a VHD keeps its identifier: opened with the new image, \
                              they silently read wrong data.",
    },
    FormatDescription {
        format: Format::Vhdx,
        name: "vhdx",
        title: "VHDX",
        extensions: &["vhdx", "avhdx"],
        block_sizes: &[
            BlockSize::MIB_1,
            BlockSize::MIB_2,
            BlockSize::MIB_4,
            BlockSize::MIB_8,
            BlockSize::MIB_16,
            BlockSize::MIB_32,
            BlockSize::MIB_64,
            BlockSize::MIB_128,
            BlockSize::MIB_256,
        ],
        smallest_usual_block: BlockSize::MIB_1,
        // MS-VHDX 2.6.2.2.
        max_disk_size: 64 << 40,
        logical_sector_sizes: &[512, 4096],
        has_zero_marker: true,
        children_of_changed: "Programs will refuse to open them with the new image.",
    },
];

impl Format {
    /// What is to be known of it.
    #[must_use]
    pub const fn description(self) -> &'static FormatDescription {
        let [vhd, vhdx] = const { &FORMATS };
        match self {
            Self::Vhd => vhd,
            Self::Vhdx => vhdx,
        }
    }

    /// The name in JSON and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.description().name
    }

    /// The name in sentences.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.description().title
    }

    /// The format of a name in JSON and options.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        FORMATS.iter().find(|description| description.name == name).map(|description| description.format)
    }
}

impl FormatDescription {
    /// The block size of this format that is nearest to `source`: the largest that is not larger, or else
    /// the smallest that there is.
    #[must_use]
    pub fn nearest_block_size(&self, source: BlockSize) -> BlockSize {
        let fitting = self.block_sizes.iter().copied().filter(|&size| size <= source);
        fitting.max().or(self.block_sizes.iter().copied().min()).unwrap_or(self.smallest_usual_block)
    }

    /// The block size of `bytes`, if a new image may have it.
    #[must_use]
    pub fn block_size(&self, bytes: u64) -> Option<BlockSize> {
        self.block_sizes.iter().copied().find(|size| size.get() == bytes)
    }

    /// The block sizes that a new image may have, for a sentence: "512K or 2M".
    #[must_use]
    pub fn block_sizes_in_words(&self) -> String {
        let words: Vec<String> = self
            .block_sizes
            .iter()
            .map(|size| match size.get() >> 20 {
                0 => format!("{}K", size.get() >> 10),
                mib => format!("{mib}M"),
            })
            .collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_own_description() {
        for format in [Format::Vhd, Format::Vhdx] {
            let description = format.description();
            assert_eq!(description.format, format);
            assert_eq!(Format::from_name(format.name()), Some(format));
            assert!(description.block_sizes.is_sorted());
            for source in [BlockSize::SECTOR, BlockSize::MIB_2, BlockSize::GIB_1] {
                let chosen = description.nearest_block_size(source);
                assert_eq!(description.block_size(chosen.get()), Some(chosen));
            }
        }
        assert_eq!(Format::from_name("vmdk"), None);
    }

    #[test]
    fn block_sizes_are_told_in_words() {
        let words = |format: Format| format.description().block_sizes_in_words();
        assert_eq!(words(Format::Vhd), "512K or 2M");
        assert_eq!(words(Format::Vhdx), "1M, 2M, 4M, 8M, 16M, 32M, 64M, 128M or 256M");
    }
}
