//! Holds the shape of the workspace: which crate may depend on which, what is pure, and how large a
//! file may be.
#![allow(clippy::unwrap_used, reason = "all of this program is tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const ROLES: [&str; 6] = [
    "outrider-gateway",
    "outrider-ingest",
    "outrider-dispatch",
    "outrider-worker",
    "outrider-egress",
    "outrider-admin",
];
const FILE_LINES: usize = 500;

struct Package {
    root: PathBuf,
    /// Names of all dependencies, those for tests and builds too.
    dependencies: Vec<String>,
    /// Those that are linked.
    linked: Vec<String>,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages: BTreeMap<_, _> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap();
            let dependencies = all.iter().map(|one| text(&one["name"])).collect();
            let linked = all
                .iter()
                .filter(|one| one["kind"].is_null())
                .map(|one| text(&one["name"]))
                .collect();
            let root =
                Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned();
            (text(&package["name"]), Package { root, dependencies, linked })
        })
        .collect();
    assert!(ROLES.iter().all(|role| packages.contains_key(*role)), "a role has no crate");
    packages
}

/// The crates whose dependencies satisfy `is`, with the dependency.
fn crates_with(is: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let packages = packages();
    let pairs = packages.iter().flat_map(|(name, package)| {
        package.dependencies.iter().map(move |one| (name.clone(), one.clone()))
    });
    pairs.filter(|(_, dependency)| is(dependency)).collect()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && name != "node_modules" && name != ".git" {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn roles_do_not_depend_on_roles() {
    let roles = |dependency: &str| ROLES.contains(&dependency);
    // The fuzzer feeds their parsers, and has them talk to nobody.
    let allowed = |dependent: &str| matches!(dependent, "outrider" | "outrider-fuzz");
    let wrong: Vec<_> =
        crates_with(roles).into_iter().filter(|(dependent, _)| !allowed(dependent)).collect();
    assert!(wrong.is_empty(), "roles meet over gRPC; only the binary links them: {wrong:?}");
}

#[test]
fn foundations_do_not_depend_on_what_stands_on_them() {
    let lower: [(&str, &[&str]); 10] = [
        ("outrider-model", &[]),
        ("outrider-allocator", &[]),
        ("outrider-failpoints", &[]),
        ("outrider-settings", &[]),
        ("outrider-telemetry", &["outrider-settings"]),
        ("outrider-shares", &["outrider-model", "outrider-telemetry"]),
        (
            "outrider-store",
            &[
                "outrider-model",
                "outrider-migrations",
                "outrider-telemetry",
                "outrider-failpoints",
                "outrider-shares",
                "outrider-settings",
            ],
        ),
        (
            "outrider-queue",
            &["outrider-model", "outrider-proto", "outrider-telemetry", "outrider-settings"],
        ),
        (
            "outrider-rpc",
            &["outrider-model", "outrider-proto", "outrider-telemetry", "outrider-shares"],
        ),
        ("outrider-schema", &["outrider-model"]),
    ];
    let packages = packages();
    for (name, allowed) in lower {
        let own =
            packages[name].linked.iter().filter(|dependency| dependency.starts_with("outrider-"));
        let wrong: Vec<_> =
            own.filter(|dependency| !allowed.contains(&dependency.as_str())).collect();
        assert!(wrong.is_empty(), "{name} depends on {wrong:?}");
    }
}

#[test]
fn databases_are_known_to_store_and_migrations_only() {
    let database =
        |dependency: &str| dependency.starts_with("sea-") || dependency.starts_with("sqlx");
    let allowed = ["outrider-store", "outrider-migrations"];
    let wrong: Vec<_> = crates_with(database)
        .into_iter()
        .filter(|(dependent, _)| !allowed.contains(&dependent.as_str()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn unsafe_code_is_where_c_is_called_only() {
    let inherits = |root: &Path| {
        fs::read_to_string(root.join("Cargo.toml")).unwrap().contains("[lints]\nworkspace = true")
    };
    let without: Vec<_> = packages()
        .into_iter()
        .filter(|(_, one)| !inherits(&one.root))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(without, ["outrider-allocator", "outrider-fuzz"], "the workspace's lints forbid it");
    // Only a program may say what all of it allocates with.
    let wrong: Vec<_> = crates_with(|one| one == "outrider-allocator")
        .into_iter()
        .filter(|(one, _)| one != "outrider")
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn redis_is_known_to_the_queue_only() {
    let redis = |dependency: &str| dependency.contains("redis") || dependency.starts_with("bb8");
    let wrong: Vec<_> = crates_with(redis)
        .into_iter()
        .filter(|(dependent, _)| dependent != "outrider-queue")
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn exporters_and_formats_are_known_to_telemetry_only() {
    let heavy = |dependency: &str| {
        dependency.contains("opentelemetry")
            || dependency.starts_with("prometheus")
            || dependency == "tracing-subscriber"
    };
    // The tests play the collector.
    let allowed = ["outrider-telemetry", "outrider-tests"];
    let wrong: Vec<_> = crates_with(heavy)
        .into_iter()
        .filter(|(dependent, _)| !allowed.contains(&dependent.as_str()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn json_schemas_are_known_to_one_crate_only_which_fetches_nothing() {
    let wrong: Vec<_> = crates_with(|dependency| dependency == "jsonschema")
        .into_iter()
        .filter(|(one, _)| one != "outrider-schema")
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // Its default features resolve references over HTTP and from files.
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("jsonschema = ")).unwrap();
    assert!(line.contains("default-features = false") && !line.contains(" features"), "{line}");
    assert!(
        !manifest.lines().any(|line| line.starts_with("panic")),
        "validation that takes too long ends by unwinding"
    );
}

#[test]
fn the_harness_links_no_role_and_no_foundation_with_io() {
    // Of the fail points only their names.
    let allowed = ["outrider-proto", "outrider-model", "outrider-failpoints"];
    let packages = packages();
    let own = packages["outrider-tests"]
        .dependencies
        .iter()
        .filter(|dependency| dependency.starts_with("outrider-"));
    let wrong: Vec<_> = own.filter(|dependency| !allowed.contains(&dependency.as_str())).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_model_is_pure() {
    let allowed = [
        "uuid",
        "serde",
        "serde_json",
        "thiserror",
        "ring",
        "base64",
        "subtle",
        "url",
        "idna",
        "memchr",
        "proptest",
        "criterion",
    ];
    let packages = packages();
    let model = &packages["outrider-model"];
    let wrong: Vec<_> = model
        .dependencies
        .iter()
        .filter(|dependency| !allowed.contains(&dependency.as_str()))
        .collect();
    assert!(
        wrong.is_empty(),
        "a dependency of the model that is not known to be without IO: {wrong:?}"
    );
    let impure = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "ToSocketAddrs",
        "std::process",
        "std::env::",
        "std::thread",
        "SystemTime",
        "Instant::now",
    ];
    for path in sources(&model.root.join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let found = impure
                .iter()
                .find(|word| line.contains(**word) && !line.trim_start().starts_with("//"));
            assert!(found.is_none(), "{}:{} uses {found:?}", path.display(), number + 1);
        }
    }
}

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

/// Files that may format by Debug, and why.
const DEBUG_ALLOWED: [(&str, &str); 1] =
    [("fuzzed.rs", "what they say is compared by the fuzzer, and read by nobody else")];

/// What Debug writes is for programmers: names of variants, escapes of Rust, braces. Nobody else
/// should read it, in a log, in an answer or on a terminal. What reaches people nevertheless, by a
/// library's own texts, the harness finds in the outputs (`shapes.rs`).
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
    // A field of an event of the log: `?name`, after a bracket, a comma or an equals sign.
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

/// A file up to the module of its tests.
fn without_tests(text: &str) -> &str {
    let is_module = |rest: &str| {
        rest.lines().nth(1).is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let at = text.match_indices("#[cfg(test)]\n").find(|(at, _)| is_module(&text[*at..]));
    at.map_or(text, |(at, _)| &text[..at])
}

/// The modules that are compiled for tests only, as paths without an extension.
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

/// Pages name the tests that hold what they promise, as `file::test`: in `e2e` or in a service.
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
    // A directory of tests, or the one file that it was.
    let files = if file.ends_with(".rs") {
        vec![path]
    } else {
        [sources(&path), vec![path.with_extension("rs")]].concat()
    };
    let mut texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.any(|text| text.contains(&format!("fn {test}(")) || text.contains(&format!(" {test}: ")))
}
