//! The protos, and the code generated from them.

use std::fs;
use std::path::{Path, PathBuf};

use protox::prost::Message;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");

fn protos(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            protos(&path, found);
        } else if path.extension().is_some_and(|it| it == "proto") {
            found.push(path);
        }
    }
}

fn compiled() -> Vec<u8> {
    let mut files = Vec::new();
    protos(Path::new(ROOT), &mut files);
    files.sort();
    let mut compiler = protox::Compiler::new([ROOT]).unwrap();
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(&files).unwrap();
    compiler.file_descriptor_set().encode_to_vec()
}

#[test]
fn the_descriptors_are_those_of_the_protos() {
    let committed = fs::read(Path::new(ROOT).join("descriptors.bin")).unwrap_or_default();
    assert!(
        committed == compiled(),
        "proto/ has changed: run `cargo test --test all write_the_descriptors -- --ignored`"
    );
}

#[test]
#[ignore = "it writes proto/descriptors.bin anew"]
fn write_the_descriptors() {
    fs::write(Path::new(ROOT).join("descriptors.bin"), compiled()).unwrap();
}
