#![no_main]

use fuzz_harness::{Target, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(Target::Journal, input);
});
