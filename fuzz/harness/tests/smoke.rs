//! A short campaign over every target, in each run of the tests: about a minute on two processors. `npm run fuzz` goes
//! on from there.

use fuzz_harness::{Target, random_input, run, seed_names};

/// Without a patch every image is compacted, proved, compared and compacted again.
#[test]
fn every_seed_is_compacted() {
    for (number, name) in seed_names(Target::Engine).iter().enumerate() {
        assert!(run(Target::Engine, &[u8::try_from(number).unwrap(), 0, 0, 0]), "{name}");
    }
}

fn try_some(target: Target, executions: u64) {
    let whole = (0..executions).filter(|&number| run(target, &random_input(number))).count();
    assert!(whole > 0, "no input of {} got to its end", target.name());
}

#[test]
fn images_are_opened_or_refused() {
    try_some(Target::Image, 3000);
}

#[test]
fn volumes_are_mapped_or_declined() {
    try_some(Target::Volume, 6000);
}

#[test]
fn journals_are_replayed_or_declined() {
    try_some(Target::Journal, 1500);
}

#[test]
fn compactions_keep_every_byte_in_use() {
    try_some(Target::Engine, 150);
}
