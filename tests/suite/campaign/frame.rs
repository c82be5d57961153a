//! The frame of all campaigns: makes the damages, hears both witnesses, and has the files judged.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vhd_compactor::extents::Extents;
use vhd_compactor::fs::{Context, Hearing, Mapping, detect};

use super::readers::Files;
use crate::toolbox::Random;

/// How many damages each file system gets where nobody asks for more.
const USUAL: u64 = 100;
/// Zeros are written, and what differs is looked for, in pieces of this length.
const PIECE: u64 = 4096;

/// Bytes that the damage puts into the volume.
pub struct Patch {
    pub at: u64,
    pub bytes: Vec<u8>,
}

/// One way to damage a volume.
pub struct Kind<S> {
    /// What happens, in a few words: "a bit of $Bitmap cleared".
    pub name: &'static str,
    /// A damage of this kind. None of its bytes need differ from what is there.
    pub damage: fn(&S, &mut Random) -> Vec<Patch>,
}

/// Another program that makes volumes smaller, and what it would have lost.
pub struct Peer {
    pub name: &'static str,
    /// Writes what it keeps of the volume in the first file to the second; false if it refuses.
    pub shrink: fn(&Path, &Path) -> bool,
}

/// A clean volume that is to be damaged.
pub trait Subject: Sized {
    /// The volume without damage.
    fn volume(&self) -> &[u8];

    /// The kinds of damage that it can have.
    fn kinds() -> Vec<Kind<Self>>;

    /// Every file that programs of others can read on the volume in `image`, by program and path.
    fn read(&self, image: &Path) -> Files;

    /// Whose losses are counted beside ours.
    fn peers() -> Vec<Peer> {
        Vec::new()
    }
}

/// What became of the damages of one kind.
#[derive(Default, Clone)]
struct Tally {
    declined: u64,
    harmless: u64,
    lost: u64,
}

impl Tally {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Declined => self.declined += 1,
            Verdict::Harmless => self.harmless += 1,
            Verdict::Lost(_) => self.lost += 1,
        }
    }

    /// A few cells of a table.
    fn cells(&self) -> String {
        format!("| {} | {} | {} ", self.declined, self.harmless, self.lost)
    }
}

/// How many damages a file system gets.
pub fn wanted() -> u64 {
    std::env::var("VHD_COMPACTOR_CAMPAIGN").map_or(USUAL, |number| number.parse().unwrap())
}

/// Which damage alone is made, where somebody wants to see one again.
fn only() -> Option<u64> {
    std::env::var("VHD_COMPACTOR_CAMPAIGN_ONLY").ok().map(|number| number.parse().unwrap())
}

/// The peers, where somebody asks for them: they take longer than all the rest.
fn peers<S: Subject>() -> Vec<Peer> {
    if std::env::var_os("VHD_COMPACTOR_CAMPAIGN_PEERS").is_some() { S::peers() } else { Vec::new() }
}

/// Runs the campaign of a file system over its subjects, prints its table, and fails if anything was lost.
pub fn campaign<S: Subject>(file_system: &str, subjects: &[S]) {
    let (kinds, peers) = (S::kinds(), peers::<S>());
    let mut benches: Vec<Bench<S>> = subjects.iter().map(Bench::new).collect();
    // Of each kind, and of all: ours first, then those of the peers.
    let mut tallies = vec![vec![Tally::default(); 1 + peers.len()]; kinds.len() + 1];
    let mut losses = Vec::new();
    let numbers = only().map_or(0..wanted(), |number| number..number + 1);
    for number in numbers {
        let turn = number as usize;
        let kind = turn % kinds.len();
        // On the diagonal, so that a short run reaches every subject and a long one every pair.
        let subject = (kind + turn / kinds.len()) % benches.len();
        let bench = &mut benches[subject];
        let damage = (kinds[kind].damage)(bench.subject, &mut Random::new(number + 1));
        if only().is_some() {
            for Patch { at, bytes } in &damage {
                println!("damage {number}, {}: {bytes:02x?} at {at}", kinds[kind].name);
            }
        }
        let verdicts = bench.verdicts(&damage, &peers);
        if let Verdict::Lost(files) = &verdicts[0] {
            losses.push(format!("damage {number} ({}), subject {subject}: {files:?}", kinds[kind].name));
        }
        for row in [kind, kinds.len()] {
            tallies[row].iter_mut().zip(&verdicts).for_each(|(tally, verdict)| tally.add(verdict));
        }
    }
    print_table(file_system, &kinds, &peers, &tallies);
    assert!(losses.is_empty(), "{file_system}: {} lost:\n{}", losses.len(), losses.join("\n"));
}

fn print_table<S>(file_system: &str, kinds: &[Kind<S>], peers: &[Peer], tallies: &[Vec<Tally>]) {
    let theirs = peers.iter().map(|peer| format!("| {}: refused | harmless | lost ", peer.name));
    println!(
        "\n| {file_system}: damage | declined | mapped, harmless | lost {}|",
        theirs.collect::<String>()
    );
    println!("|{}", "---|".repeat(4 + 3 * peers.len()));
    let names = kinds.iter().map(|kind| kind.name).chain(["all"]);
    for (name, row) in names.zip(tallies) {
        println!("| {name} {}|", row.iter().map(Tally::cells).collect::<String>());
    }
    println!();
}

/// What a damage led to.
enum Verdict {
    Declined,
    Harmless,
    /// These files read differently once what was called free had been filled with zeros.
    Lost(Vec<String>),
}

impl From<Vec<String>> for Verdict {
    fn from(changed: Vec<String>) -> Self {
        if changed.is_empty() { Self::Harmless } else { Self::Lost(changed) }
    }
}

/// The files that were read before and now are not, or differently.
fn changed(before: Files, after: &Files) -> Vec<String> {
    before
        .into_iter()
        .filter(|(file, digest)| after.get(file) != Some(digest))
        .map(|(file, _)| file)
        .collect()
}

/// A subject with the copy of its volume that is damaged, judged and put right again.
struct Bench<'s, S> {
    subject: &'s S,
    bytes: Vec<u8>,
    image: PathBuf,
    file: File,
    /// Where the copy differs from the subject's volume.
    touched: Vec<Range<u64>>,
    _folder: TempDir,
}

impl<'s, S: Subject> Bench<'s, S> {
    /// The bench of a subject, which must be mapped and readable while it has no damage.
    fn new(subject: &'s S) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::write(&image, subject.volume()).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&image).unwrap();
        let bytes = subject.volume().to_vec();
        let mut bench = Self { subject, bytes, image, file, touched: Vec::new(), _folder: folder };
        let free = bench.free().expect("the volume is mapped while it has no damage");
        assert!(bench.subject.read(&bench.image).len() > 20, "the volume has files");
        assert!(bench.changed_by_zeros(&free).is_empty(), "nothing reads what is free");
        bench.restore();
        bench
    }

    /// What a damage leads to: with us, then with each peer.
    fn verdicts(&mut self, damage: &[Patch], peers: &[Peer]) -> Vec<Verdict> {
        for Patch { at, bytes } in damage {
            self.write(*at, bytes);
        }
        let theirs: Vec<_> = peers.iter().map(|peer| self.verdict_on(peer)).collect();
        let ours = self.free().map_or(Verdict::Declined, |free| self.changed_by_zeros(&free).into());
        self.restore();
        std::iter::once(ours).chain(theirs).collect()
    }

    fn verdict_on(&self, peer: &Peer) -> Verdict {
        let out = self.image.with_extension("peer");
        if !(peer.shrink)(&self.image, &out) {
            return Verdict::Declined;
        }
        let changed = changed(self.subject.read(&self.image), &self.subject.read(&out));
        fs::remove_file(out).unwrap();
        changed.into()
    }

    /// What is free once both witnesses agree; none if the volume is declined.
    fn free(&self) -> Option<Extents> {
        let detected = detect(&self.bytes, Context { sector_size: 512 }).heard(&self.bytes);
        match (detected.mapping, detected.hearing) {
            (Mapping::Mapped(map), Hearing::Agrees(_)) => Some(map.free),
            (Mapping::Mapped(_), hearing) => panic!("mapped, and {hearing:?}"),
            (Mapping::Declined(_), _) => None,
        }
    }

    /// The files that read differently once these bytes are zeros.
    fn changed_by_zeros(&mut self, free: &Extents) -> Vec<String> {
        let before = self.subject.read(&self.image);
        for range in free.ranges() {
            let mut at = range.start;
            while at < range.end {
                let end = (at + PIECE).min(range.end);
                if self.bytes[at as usize..end as usize].iter().any(|&byte| byte != 0) {
                    self.write(at, &vec![0; (end - at) as usize]);
                }
                at = end;
            }
        }
        changed(before, &self.subject.read(&self.image))
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        self.bytes[at as usize..end as usize].copy_from_slice(bytes);
        self.file.write_all_at(bytes, at).unwrap();
        self.touched.push(at..end);
    }

    fn restore(&mut self) {
        for range in std::mem::take(&mut self.touched) {
            let bytes = &self.subject.volume()[range.start as usize..range.end as usize];
            self.bytes[range.start as usize..range.end as usize].copy_from_slice(bytes);
            self.file.write_all_at(bytes, range.start).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume of three files of one byte: the name of a file is its place, and every file reads.
    struct Three(Vec<u8>);

    impl Subject for Three {
        fn volume(&self) -> &[u8] {
            &self.0
        }
        fn kinds() -> Vec<Kind<Self>> {
            Vec::new()
        }
        fn read(&self, image: &Path) -> Files {
            let bytes = fs::read(image).unwrap();
            (0..3).map(|n| (n.to_string(), bytes[n].to_string())).collect()
        }
    }

    #[test]
    fn a_file_that_lay_in_free_space_is_lost() {
        let subject = Three(vec![7; 3]);
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::write(&image, &subject.0).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&image).unwrap();
        let (bytes, touched) = (subject.0.clone(), Vec::new());
        let mut bench =
            Bench { subject: &subject, bytes, image: image.clone(), file, touched, _folder: folder };
        let free = Extents::from_ranges(vec![1..2]);
        assert_eq!(bench.changed_by_zeros(&free), ["1"]);
        assert_eq!(fs::read(&image).unwrap(), [7, 0, 7]);
        bench.restore();
        assert_eq!(fs::read(&image).unwrap(), [7; 3]);
        assert!(bench.changed_by_zeros(&Extents::new()).is_empty());
    }
}
