//! Runs every target on its kept inputs: those that once found something, and those that reach most
//! of the code.
#![allow(clippy::unwrap_used, reason = "all of this program is tests")]

use std::{fs, path::Path};

use outrider_fuzz::TARGETS;

/// Maximum number of inputs of a target.
const MOST: usize = 350;
/// Maximum size of an input, in bytes.
const LARGEST: u64 = 4_096;

#[test]
fn what_is_kept_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut named: Vec<_> = fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    named.sort();
    assert_eq!(named, TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
    for target in TARGETS {
        let files: Vec<_> = fs::read_dir(corpus.join(target.name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!((10..=MOST).contains(&files.len()), "{} inputs of {}", files.len(), target.name);
        for file in files {
            assert!(
                fs::metadata(&file).unwrap().len() <= LARGEST,
                "{} is too large",
                file.display()
            );
            let input = fs::read(&file).unwrap();
            let outcome = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(outcome.is_ok(), "{} does not hold on {}", target.name, file.display());
        }
    }
}
