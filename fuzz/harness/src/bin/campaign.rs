//! Fuzzing with stable Rust alone: random inputs, the same for the same number.
//!
//! ```text
//! campaign [--executions N] [--seconds N] [--first N] [target …]
//! campaign --input FILE target        one input again, with its message
//! ```
//! A failure is written to `fuzz/artifacts/<target>/` and ends the campaign.

use std::alloc::System;
use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use cap::Cap;
use fuzz_harness::{Target, random_input, run, seed_names};

/// Counts what is allocated.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What one input may have allocated at any time besides the seeds.
const LARGEST_PEAK: usize = 256 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut executions = u64::MAX;
    let mut seconds = u64::MAX / 2;
    let mut first = 0;
    let mut targets = Vec::new();
    let mut again = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--executions" => executions = value()?.parse()?,
            "--seconds" => seconds = value()?.parse()?,
            "--first" => first = value()?.parse()?,
            "--input" => again = Some(fs::read(value()?)?),
            name => {
                let target = Target::ALL.into_iter().find(|target| target.name() == name);
                targets.push(target.ok_or(format!("no target {name}"))?);
            }
        }
    }
    if targets.is_empty() {
        targets = Target::ALL.to_vec();
    }
    if let Some(input) = again {
        run(targets[0], &input);
        return Ok(());
    }
    let each = Duration::from_secs(seconds / targets.len() as u64);
    for target in targets {
        campaign(target, first, executions, each)?;
    }
    Ok(())
}

fn campaign(target: Target, first: u64, executions: u64, time: Duration) -> Result<(), Box<dyn Error>> {
    let seeds = seed_names(target).len();
    let started = Instant::now();
    let mut done = 0;
    let (mut peak, mut whole) = (0, 0);
    while done < executions && started.elapsed() < time {
        let input = random_input(first.wrapping_add(done));
        let before = MEMORY.allocated();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(target, &input)));
        // The highest mark is over all inputs: what is above the seeds belongs to the worst of them.
        peak = MEMORY.max_allocated().saturating_sub(before);
        if outcome.is_err() || peak > LARGEST_PEAK {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../artifacts").join(target.name());
            fs::create_dir_all(&folder)?;
            let path = folder.join(format!("campaign-{}", first.wrapping_add(done)));
            fs::write(&path, &input)?;
            return Err(format!("{}: {} ({} MiB)", target.name(), path.display(), peak >> 20).into());
        }
        done += 1;
        whole += u64::from(outcome.is_ok_and(|whole| whole));
    }
    println!(
        "{}: {done} executions on {seeds} seeds, {whole} to the end, in {:.1} s, at most {} MiB",
        target.name(),
        started.elapsed().as_secs_f64(),
        peak >> 20
    );
    Ok(())
}
