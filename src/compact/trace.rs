//! Traces bytes of a new image back to the piece, and the source file, that they came from.
//!
//! ```text
//!   new file   │ front │ piece │ piece       │ piece │ …     asked for in ascending order, as the disk lies
//!                       └ file 0, 4711…      └ made bytes: nothing is known of them
//! ```
//! The pieces are laid out once more, so that nothing has to be remembered of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::layout::{Layout, Pieces};
use crate::error::Result;
use crate::image::Piece;
use crate::units::{FileOffset, add, length};

/// How many pieces are laid out at a time.
const MAX_PIECES: usize = 64;
/// How many made bytes are laid out at a time.
const MAX_MADE: u64 = 4 << 20;

/// What is known of a part of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Traced {
    /// It consists of the very bytes that were expected.
    Same(Range<u64>),
    /// It was made, or came from elsewhere: its bytes must be compared.
    Unknown(Range<u64>),
}

/// A range of the new file, and the source range that it was copied from, if it was.
struct Known {
    range: Range<u64>,
    copied_from: Option<(usize, u64)>,
}

/// The pieces of a layout as a map from the new file to the sources.
pub struct Tracer {
    pieces: Pieces,
    /// Ascending, without gaps, and none before the last range that was asked for.
    known: VecDeque<Known>,
    /// Where the next piece begins in the new file.
    at: u64,
}

impl Tracer {
    /// A map over the pieces of `layout`.
    #[must_use]
    pub fn new(layout: &Rc<Layout>) -> Self {
        Self { pieces: Pieces::of(layout), known: VecDeque::new(), at: 0 }
    }

    /// Which parts of the disk bytes `range`, which the new file holds from `written` on, were copied from
    /// where they belong: from `from` on of the source `file`. What lies before an earlier call is unknown.
    ///
    /// # Errors
    /// Read errors, where pieces must be composed.
    pub fn trace(
        &mut self,
        range: Range<u64>,
        written: FileOffset,
        file: usize,
        from: FileOffset,
    ) -> Result<Vec<Traced>> {
        let end = written.plus(length(&range))?.get();
        self.reach(written.get(), end)?;
        let mut parts = Vec::new();
        let mut at = written.get();
        for known in self.known.iter().take_while(|known| known.range.start < end) {
            if known.range.end <= at || known.range.start > at {
                continue;
            }
            let part = at..known.range.end.min(end);
            let expected = from.plus(length(&(written.get()..at)))?.get();
            let copied = match known.copied_from {
                Some((source, start)) => {
                    source == file
                        && add(start, length(&(known.range.start..at)), "a place in a file")? == expected
                }
                None => false,
            };
            let on_disk = |place: u64| add(range.start, length(&(written.get()..place)), "a disk offset");
            let on_disk = on_disk(part.start)?..on_disk(part.end)?;
            at = part.end;
            parts.push(if copied { Traced::Same(on_disk) } else { Traced::Unknown(on_disk) });
        }
        if at < end {
            let rest = add(range.start, length(&(written.get()..at)), "a disk offset")?..range.end;
            parts.push(Traced::Unknown(rest));
        }
        Ok(parts)
    }

    /// Lays out pieces up to `end` of the new file, and forgets those before `start`.
    fn reach(&mut self, start: u64, end: u64) -> Result<()> {
        loop {
            while self.known.front().is_some_and(|known| known.range.end <= start) {
                self.known.pop_front();
            }
            if self.at >= end {
                return Ok(());
            }
            let pieces = self.pieces.next(MAX_PIECES, MAX_MADE)?;
            if pieces.is_empty() {
                return Ok(());
            }
            for piece in pieces {
                let range = self.at..add(self.at, piece.len(), "a place in the new file")?;
                self.at = range.end;
                let copied_from = match piece {
                    Piece::Source { file, range } => Some((file, range.start)),
                    Piece::Zeros(_) | Piece::Bytes(_) => None,
                };
                self.known.push_back(Known { range, copied_from });
            }
        }
    }
}
