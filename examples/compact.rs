//! Compacts an image natively: `cargo run --release --example compact -- SOURCE OUTPUT [PARENT …]`.
//!
//! The command of this project runs the same engine as WebAssembly; this is for those who use it from Rust.

/// In WebAssembly there are no paths; the page and the command show how it is driven there.
#[cfg(target_family = "wasm")]
fn main() {}

#[cfg(not(target_family = "wasm"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::fs::File;
    use std::rc::Rc;

    use vhd_compactor::compact::{Analysis, Evidence, Fresh, Input, Options, Run};
    use vhd_compactor::io::{NativeFile, ReadAt};

    let mut paths = std::env::args().skip(1);
    let (Some(source), Some(output)) = (paths.next(), paths.next()) else {
        return Err("SOURCE OUTPUT [PARENT …]".into());
    };
    let image: Rc<dyn ReadAt> = Rc::new(NativeFile::open(&source)?);
    let mut files = vec![Rc::clone(&image)];
    for parent in paths {
        files.push(Rc::new(NativeFile::open(parent)?));
    }
    let input = |file: &Rc<dyn ReadAt>| Input { file: Rc::clone(file), name: source.clone(), modified: None };

    // The file systems' own maps, then the walks over everything that owns space.
    let parents = files.iter().skip(1).map(input).collect();
    let analysis = Rc::new(Analysis::open(input(&image), parents)?.hear()?);
    let mut run = Run::new(&analysis, Options::default())?;
    while !run.scan_step(64 << 20)?.finished {}

    let new = uuid::Uuid::new_v4;
    let fresh = Fresh { file_write: new(), data_write: new(), disk: new(), time_stamp: 0 };
    let outcome = run.lay_out(&fresh)?;
    // Never over a file that is there: it might be the source.
    let mut written = File::create_new(&output)?;
    run.write(&files, &mut written)?;
    written.sync_all()?;

    let result: Rc<dyn ReadAt> = Rc::new(NativeFile::open(&output)?);
    run.prove(input(&result), Evidence::Bytes)?;
    while !run.proof_step(64 << 20)?.finished {}
    let compared = run.verdict().map_or(0, |verdict| verdict.compared);
    println!("{} bytes became {}; {compared} stored bytes compared", analysis.file_size(), outcome.size);
    Ok(())
}
