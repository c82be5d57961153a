//! A file of the operating system: tests, fuzzers and benches.

use std::fs::File;
use std::io::ErrorKind as Io;
use std::path::Path;

use super::{ReadAt, check_range};
use crate::error::{Error, ErrorKind, Result};
use crate::units::len64;

/// A file opened for reading only. Its size is the size at opening.
pub struct NativeFile {
    file: File,
    size: u64,
}

impl NativeFile {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// `permission-denied` or `read-failed`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = File::open(path.as_ref()).map_err(|e| from_os(&e))?;
        let size = file.metadata().map_err(|e| from_os(&e))?.len();
        Ok(Self { file, size })
    }
}

impl ReadAt for NativeFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        read_at(&self.file, offset, buf).map_err(|e| match e.kind() {
            Io::UnexpectedEof => {
                Error::new(ErrorKind::SourceChanged, "the file became shorter while it was read")
            }
            _ => from_os(&e),
        })
    }
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buf)
}

fn from_os(error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        Io::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::ReadFailed,
    };
    Error::new(kind, format!("the file cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tests::{conforms, pattern};

    #[test]
    fn native_file_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, pattern(70_000)).unwrap();
        conforms(&NativeFile::open(&path).unwrap(), &pattern(70_000));
    }

    #[test]
    fn a_file_that_shrinks_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [1; 100]).unwrap();
        let file = NativeFile::open(&path).unwrap();
        std::fs::write(&path, [1; 10]).unwrap();
        assert_eq!(file.read_exact_at(0, &mut [0; 50]).unwrap_err().kind(), ErrorKind::SourceChanged);
        assert_eq!(NativeFile::open(dir.path().join("none")).err().unwrap().kind(), ErrorKind::ReadFailed);
    }
}
