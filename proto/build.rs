//! Compiles the protos with a compiler written in Rust, so that nothing but cargo is needed.
use std::path::{Path, PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    collect(Path::new("outrider"), &mut files)?;
    files.sort();
    println!("cargo:rerun-if-changed=outrider");
    println!("cargo:rerun-if-changed=third_party");

    let mut compiler = protox::Compiler::new([".", "third_party"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let descriptors = compiler.file_descriptor_set();

    // Extension values (scopes, HTTP rules) survive only in protox's own encoding, not in prost's
    // types.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut config = tonic_prost_build::Config::new();
    // Messages know the names by which the descriptors are found.
    config.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".outrider")
        .compile_fds_with_config(prost_types_of(&descriptors)?, config)?;
    Ok(())
}

/// The descriptor set in the types of the prost version that tonic-prost-build speaks.
fn prost_types_of<T: prost::Message>(
    set: &T,
) -> Result<tonic_prost_build::FileDescriptorSet, prost::DecodeError> {
    tonic_prost_build::FileDescriptorSet::decode(set.encode_to_vec().as_slice())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
