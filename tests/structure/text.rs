//! Checks the size and width of files, and texts in them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::workspace::{packages, sources, workspace};

const FILE_LINES: usize = 500;
const COLUMNS: usize = 100;

#[test]
fn every_crate_begins_with_its_purpose() {
    for (name, package) in packages() {
        let src = package.root.join("src");
        let root =
            if src.join("lib.rs").exists() { src.join("lib.rs") } else { src.join("main.rs") };
        let text = fs::read_to_string(&root).unwrap();
        let purpose = text.lines().next().unwrap_or_default();
        assert!(
            purpose.starts_with("//! ") && purpose.len() > 30,
            "{name} does not say what it is for: {purpose:?}"
        );
    }
}

#[test]
fn files_are_small() {
    let mut checked = 0;
    for package in packages().values() {
        for path in sources(&package.root) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(
                lines <= FILE_LINES,
                "{} has {lines} lines; at most {FILE_LINES}",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} files were found");
}

/// Lines that may be wider: the end of the file's path, and a part of the line.
const WIDE: [(&str, &str); 7] = [
    // The row of a table cannot be broken. Pages that people read first have no wide tables.
    (".md", "|"),
    // A command that tests read, and samples of output and configuration.
    ("operations.md", "ACL SETUSER"),
    ("guarantees.md", "  "),
    ("egress.md", "allow = ["),
    ("testing.md", "cargo run"),
    // Commands that are printed for copying.
    ("dev/words.rs", " -H "),
    // The format that buf requires.
    (".proto", "option (google.api.http)"),
];

#[test]
fn lines_are_at_most_100_columns_wide() {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut checked = 0;
    let mut found = Vec::new();
    for name in listed.split_terminator('\0').filter(|name| is_written_by_people(name)) {
        // Git still lists a deleted file.
        let Ok(text) = fs::read_to_string(workspace().join(name)) else { continue };
        checked += 1;
        for (number, line) in text.lines().enumerate() {
            let may_be_wide = is_unbreakable(line)
                || WIDE.iter().any(|(file, part)| name.ends_with(file) && line.contains(part));
            if line.chars().count() > COLUMNS && !may_be_wide {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(checked > 500, "only {checked} files were found");
    assert!(found.is_empty(), "{} lines are too wide:\n{}", found.len(), found.join("\n"));
}

fn is_written_by_people(name: &str) -> bool {
    let kinds =
        ["rs", "proto", "md", "lua", "sql", "sh", "py", "js", "yaml", "yml", "toml", "html"];
    let is_script = ["run", "release", "Dockerfile"].contains(&name.rsplit('/').next().unwrap());
    let kind = name.rsplit_once('.').is_some_and(|(_, kind)| kinds.contains(&kind));
    (kind || is_script) && !name.starts_with("tests/fuzz/corpus/") && name != "Cargo.toml"
}

/// Whether the line is one word, such as a link, after its indentation or mark.
fn is_unbreakable(line: &str) -> bool {
    let marks: &[char] = &['/', '!', '#', '-', '*', ' '];
    !line.trim().trim_start_matches(marks).contains(' ')
}

/// Files that may format with `Debug`, with the reason.
const DEBUG_ALLOWED: [(&str, &str); 1] =
    [("fuzzed.rs", "what they say is compared by the fuzzer, and read by nobody else")];

/// The output of `Debug` is for programmers: names of variants, escapes of Rust, braces. It must
/// not appear in a log, in an answer or on a terminal. Where a library writes it into a text of its
/// own, the harness finds it in the output (`shapes.rs`).
#[test]
fn no_text_for_people_is_formatted_by_debug() {
    let mut checked = 0;
    let mut found = Vec::new();
    for package in
        packages().values().filter(|package| package.root.starts_with(workspace().join("services")))
    {
        let all = sources(&package.root.join("src"));
        let of_tests = modules_of_tests(&all);
        let is_of_tests = |path: &Path| {
            of_tests
                .iter()
                .any(|module| path.starts_with(module) || path == module.with_extension("rs"))
        };
        for path in all.iter().filter(|path| !is_of_tests(path)) {
            if DEBUG_ALLOWED.iter().any(|(name, _)| path.ends_with(name)) {
                continue;
            }
            checked += 1;
            let text = fs::read_to_string(path).unwrap();
            for (number, line) in
                without_tests(&text).lines().enumerate().filter(|(_, line)| formats_by_debug(line))
            {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(checked > 200, "only {checked} files were found");
    assert!(found.is_empty(), "write words, by Display or `model::text`:\n{}", found.join("\n"));
    for line in [
        "\"{error:?}\"",
        "\"{:#?}\", x",
        "tracing::warn!(?error, \"x\")",
        "info!(a, names = ?names)",
        "?kinds,",
        "dbg!(x)",
    ] {
        assert!(formats_by_debug(line), "{line}");
    }
    for line in
        ["let x = y?;", "// {error:?}", "f(x?, y)", "\"is it {word}?\"", "\"/v1?page={page}\""]
    {
        assert!(!formats_by_debug(line), "{line}");
    }
}

fn formats_by_debug(line: &str) -> bool {
    let line = line.trim_start();
    if line.starts_with("//") {
        return false;
    }
    let in_braces = line.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    let formatted = in_braces
        .map(|(inside, _)| inside)
        .any(|inside| inside.contains(":?") || inside.contains(":#?"));
    // A field of a log event is `?name` after a bracket, a comma or an equals sign.
    let places: Vec<_> = line.match_indices('?').map(|(at, _)| at).collect();
    let named = places.iter().any(|at| {
        let begins =
            line[at + 1..].starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
        let before = line[..*at].trim_end();
        begins && (before.is_empty() || before.ends_with(['(', ',', '=']))
    });
    formatted
        || named
        || ["dbg!(", "field::debug(", "Debug::fmt("].iter().any(|word| line.contains(word))
}

/// Returns a file up to its module of tests.
pub fn without_tests(text: &str) -> &str {
    let is_module = |rest: &str| {
        rest.lines().nth(1).is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let at = text.match_indices("#[cfg(test)]\n").find(|(at, _)| is_module(&text[*at..]));
    at.map_or(text, |(at, _)| &text[..at])
}

/// Returns the modules that are compiled only for tests, as paths without an extension.
fn modules_of_tests(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut modules = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).unwrap();
        let is_root = ["lib.rs", "mod.rs", "main.rs"].iter().any(|name| path.ends_with(name));
        let base =
            if is_root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
        for rest in
            text.split("#[cfg(test)]\n").skip(1).chain(text.split("#[cfg(any(test, ").skip(1))
        {
            let declared = rest
                .lines()
                .take(2)
                .find_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "));
            modules.extend(declared.map(|(_, name)| base.join(name)));
        }
    }
    modules
}

/// Pages name the tests of their promises as `file::test`, in `e2e` or in a service.
#[test]
fn the_tests_named_by_the_pages_are_there() {
    for (name, least) in [("docs/guarantees.md", 40), ("docs/security.md", 30)] {
        let page = fs::read_to_string(workspace().join(name)).unwrap();
        let named: Vec<(&str, &str)> = page
            .split('`')
            .filter_map(|word| word.split_once("::").filter(|(file, _)| file.contains('/')))
            .collect();
        assert!(named.len() >= least, "only {named:?}");
        for (file, test) in named {
            assert!(is_there(file, test), "{name} names {file}::{test}, which is not there");
        }
    }
}

fn is_there(file: &str, test: &str) -> bool {
    let base = if file.starts_with("e2e/") { "tests" } else { "services" };
    let path = workspace().join(base).join(file);
    // A directory of tests, or a single file.
    let files = if file.ends_with(".rs") {
        vec![path]
    } else {
        [sources(&path), vec![path.with_extension("rs")]].concat()
    };
    let mut texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.any(|text| text.contains(&format!("fn {test}(")) || text.contains(&format!(" {test}: ")))
}
