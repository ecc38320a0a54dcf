//! Checks that every flag of every command is exercised: by a test of the command line, or by an
//! example in the documentation, which the documentation tests run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Command, CommandFactory as _};

/// Flags that many commands share, together with their code. It is enough that one command is given
/// the flag.
const SHARED: &[&str] = &[
    "--config",
    "--set",
    "--server",
    "--key",
    "--project",
    "--profile",
    "--json",
    "--page-size",
    "--page-token",
    "--since",
    "--until",
];

/// Flags that neither kind of test gives, and the test that observes each.
const ELSEWHERE: &[(&str, &str, &str)] = &[(
    "deliveries watch",
    "--cursor",
    "a_tail_prints_events_goes_on_from_a_cursor_and_ends_when_told, by the same follower",
)];

/// A flag of a command, with the words of the command.
struct Flag {
    words: Vec<String>,
    long: String,
}

fn flags(command: &Command, words: &[String], into: &mut Vec<Flag>) {
    for argument in command
        .get_arguments()
        .filter(|argument| !matches!(argument.get_action(), ArgAction::Help | ArgAction::Version))
    {
        if let Some(long) = argument.get_long() {
            into.push(Flag { words: words.to_vec(), long: format!("--{long}") });
        }
    }
    for inner in command.get_subcommands() {
        flags(inner, &[words, &[inner.get_name().to_owned()]].concat(), into);
    }
}

fn read_all(directory: &Path, extension: &str, into: &mut Vec<String>) {
    let mut left: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| found == extension) {
            into.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Maximum distance in a test between the words of a command and its flags.
const NEAR: usize = 500;

fn is_given(flag: &Flag, tests: &[String], pages: &[String]) -> bool {
    if SHARED.contains(&flag.long.as_str()) {
        let (quoted, shown) =
            (format!("\"{}", flag.long), pages.iter().flat_map(|page| page.lines()));
        let in_example = shown
            .filter(|text| text.trim_start().starts_with("outrider "))
            .any(|text| has_word(text, &flag.long));
        return in_example || tests.iter().any(|test| has_word(test, &quoted));
    }
    let line = format!("outrider {}", flag.words.join(" "));
    let shown = pages.iter().flat_map(|page| page.lines());
    if shown.filter(|text| text.contains(&line)).any(|text| has_word(text, &flag.long)) {
        return true;
    }
    let quoted: Vec<String> = flag.words.iter().map(|word| format!("\"{word}\"")).collect();
    let (command, long) = (quoted.join(", "), format!("\"{}", flag.long));
    tests.iter().any(|test| {
        test.match_indices(&command).any(|(at, _)| {
            let end = (at..=(at + NEAR).min(test.len()))
                .rev()
                .find(|end| test.is_char_boundary(*end))
                .unwrap_or(at);
            has_word(&test[at..end], &long)
        })
    })
}

/// Whether a text contains a flag as a whole, not as the beginning of a longer one.
fn has_word(text: &str, flag: &str) -> bool {
    text.match_indices(flag).any(|(at, _)| {
        !text[at + flag.len()..]
            .starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-')
    })
}

#[test]
fn every_flag_is_given_by_a_test_or_an_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut tests, mut pages) = (Vec::new(), Vec::new());
    read_all(&root.join("tests"), "rs", &mut tests);
    read_all(&root.join("../../tests"), "rs", &mut tests);
    read_all(&root.join("../../docs"), "md", &mut pages);
    // Long commands and lists span several lines.
    let pages: Vec<String> = pages.iter().map(|page| page.replace("\\\n", " ")).collect();
    let tests: Vec<String> =
        tests.iter().map(|test| test.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let mut all = Vec::new();
    flags(&crate::cli::Cli::command(), &[], &mut all);
    let name = |flag: &Flag| format!("{} {}", flag.words.join(" "), flag.long);
    let elsewhere = |flag: &Flag| {
        ELSEWHERE
            .iter()
            .any(|(command, long, _)| *command == flag.words.join(" ") && *long == flag.long)
    };
    let missing: Vec<String> = all
        .iter()
        .filter(|flag| !elsewhere(flag) && !is_given(flag, &tests, &pages))
        .map(name)
        .collect();
    assert!(missing.is_empty(), "no test and no example gives {missing:#?}");
    for (command, long, _) in ELSEWHERE {
        assert!(
            all.iter().any(|flag| flag.words.join(" ") == *command && flag.long == *long),
            "{command} {long}"
        );
    }
}
