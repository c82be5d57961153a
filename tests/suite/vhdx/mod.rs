//! VHDX in and out: images that strangers made, and what is written judged by strangers.

mod reading;
mod support;
mod writing;
