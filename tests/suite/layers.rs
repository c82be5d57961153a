//! The picture in `src/lib.rs`, kept true: which module may name which.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module and what it may use besides itself; what is missing here is a new module.
const LAYERS: [(&str, &[&str]); 11] = [
    ("units", &["error"]),
    ("error", &["units"]),
    ("checksum", &[]),
    ("extents", &["error", "units"]),
    ("io", &["extents", "error", "units"]),
    ("image", &["checksum", "io", "extents", "error", "units"]),
    ("volume", &["checksum", "io", "extents", "error", "units"]),
    ("fs", &["checksum", "volume", "io", "extents", "error", "units"]),
    ("compact", &["fs", "volume", "image", "io", "extents", "error", "units"]),
    ("web", &["compact", "fs", "volume", "image", "io", "extents", "error", "units"]),
    ("lib", &["compact", "fs", "volume", "image", "io", "extents", "error", "units", "web"]),
];

#[test]
fn arrows_point_down_only() {
    let mut upward = Vec::new();
    for file in sources(&source_folder()) {
        let module = module_of(&file);
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} has no place in the layers: {}", file.display()));
        for used in modules_used(&fs::read_to_string(&file).unwrap()) {
            if used != module && !allowed.contains(&used.as_str()) {
                upward.push(format!("{} uses crate::{used}", file.display()));
            }
        }
    }
    assert!(upward.is_empty(), "arrows that point up or across:\n{}", upward.join("\n"));
}

#[test]
fn every_layer_has_its_module() {
    let present: BTreeSet<String> = sources(&source_folder()).iter().map(|file| module_of(file)).collect();
    for (name, _) in LAYERS {
        assert!(present.contains(name), "{name} is gone from src");
    }
}

#[test]
fn finds_every_way_of_naming_a_module() {
    let source = "
        use crate::io::{ReadAt, Window};
        use crate::{error::Error, fs::{ext, ntfs},
            units};
        //! A comment may speak of crate::web.
        fn f() -> crate::extents::Extents { crate::image::open() }
        pub(crate) fn g() {}
    ";
    let expected = ["error", "extents", "fs", "image", "io", "units"].map(String::from);
    assert_eq!(modules_used(source), BTreeSet::from(expected));
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The first component below `src`, without `.rs`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(source_folder()).unwrap();
    let first = inside.components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The top-level modules that code names, as `crate::io::…` or as `crate::{io::…, units}`.
fn modules_used(source: &str) -> BTreeSet<String> {
    let code: Vec<&str> = source.lines().map(|line| line.split("//").next().unwrap()).collect();
    let code = code.join("\n");
    code.match_indices("crate::")
        .flat_map(|(at, _)| {
            let rest = &code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => heads_of_group(group),
                None => vec![identifier(rest)],
            }
        })
        .filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase()))
        .collect()
}

/// The first names of a group's elements: `error::Error, fs::{ext, ntfs}}` gives `error` and `fs`.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = vec![identifier(group)];
    let mut depth = 1;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(identifier(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}
