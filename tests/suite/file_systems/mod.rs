//! What each file system's reader calls free, compared with what independent tools say of the same volume.

mod btrfs;
mod contents;
mod ext;
mod fat;
mod lvm;
mod nested;
mod ntfs;
mod xfs;
