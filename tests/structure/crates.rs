//! Checks which crate depends on which, and which crates are pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{
    text::without_tests,
    workspace::{packages, sources, workspace},
};

const ROLES: [&str; 6] = [
    "outrider-gateway",
    "outrider-ingest",
    "outrider-dispatch",
    "outrider-worker",
    "outrider-egress",
    "outrider-admin",
];

/// Returns the crates with a dependency that satisfies `is`, with that dependency.
fn crates_with(is: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let packages = packages();
    let pairs = packages.iter().flat_map(|(name, package)| {
        package.dependencies.iter().map(move |one| (name.clone(), one.clone()))
    });
    pairs.filter(|(_, dependency)| is(dependency)).collect()
}

#[test]
fn roles_do_not_depend_on_roles() {
    let roles = |dependency: &str| ROLES.contains(&dependency);
    // The fuzzer feeds the crates' parsers, and lets them connect to nothing.
    let allowed = |dependent: &str| matches!(dependent, "outrider" | "outrider-fuzz");
    let wrong: Vec<_> =
        crates_with(roles).into_iter().filter(|(dependent, _)| !allowed(dependent)).collect();
    assert!(wrong.is_empty(), "roles meet over gRPC; only the binary links them: {wrong:?}");
}

/// A row of the code map in ARCHITECTURE.md: a crate's directory, and the crates that it may use.
fn code_map() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let rows = page.lines().skip_while(|line| *line != "| crate | purpose | may use |").skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [directory, _, uses] = cells[..] else { panic!("three cells are expected: {row}") };
            let uses = uses.split(", ").filter(|name| *name != "none");
            let directory = directory.trim_matches('`').trim_end_matches('/');
            (directory.to_owned(), uses.map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn crates_depend_on_each_other_as_the_code_map_says() {
    let map = code_map();
    let packages = packages();
    let ours = |names: &[String]| -> BTreeSet<String> {
        names.iter().filter_map(|name| name.strip_prefix("outrider-")).map(str::to_owned).collect()
    };
    for (name, package) in &packages {
        let directory = package.root.strip_prefix(workspace()).unwrap().to_str().unwrap();
        let allowed = map
            .get(directory)
            .unwrap_or_else(|| panic!("the code map has no row for {directory} ({name})"));
        if allowed.contains("everything") {
            continue;
        }
        assert_eq!(&ours(&package.linked), allowed, "{name} links (left), and may use (right)");
        let tested: BTreeSet<_> =
            ours(&package.dependencies).difference(allowed).cloned().collect();
        assert!(tested.is_empty(), "tests of {name} use {tested:?}");
    }
    assert_eq!(map.len(), packages.len(), "the code map has rows for crates that do not exist");
}

/// The directories of ARCHITECTURE.md and of the other pages exist.
#[test]
fn the_paths_named_by_the_architecture_exist() {
    let page = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let mut checked = 0;
    for word in page.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/')
            && !word.contains([' ', '<', '*', ':', '$'])
            && (word.ends_with('/') || word.rsplit('/').next().unwrap().contains('.'));
        if !is_path {
            continue;
        }
        // Inside `services/`, a path begins with the name of the crate, and leaves out `src/`.
        let in_crate = word
            .split_once('/')
            .map(|(name, rest)| workspace().join("services").join(name).join("src").join(rest));
        let is_there =
            workspace().join(word).exists() || in_crate.is_some_and(|path| path.exists());
        assert!(is_there, "ARCHITECTURE.md names `{word}`, which does not exist");
        checked += 1;
    }
    assert!(checked > 20, "only {checked} paths were found");
}

/// The traits between roles use the types of the model. Messages between processes appear only
/// where they are sent and received.
#[test]
fn messages_between_roles_are_known_at_the_edges_only() {
    let edges = ["services/rpc/src/channels/", "services/queue/src/redis/"];
    let mut checked = 0;
    for package in packages().values() {
        for path in sources(&package.root.join("src")) {
            let name = path.strip_prefix(workspace()).unwrap().to_str().unwrap().to_owned();
            if edges.iter().any(|edge| name.starts_with(edge)) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = without_tests(&text);
            let names_them = code.contains("outrider_proto::internal")
                || code
                    .split("use outrider_proto::{")
                    .skip(1)
                    .any(|rest| rest.split(';').next().unwrap_or_default().contains("internal"));
            assert!(!names_them, "{name} uses messages between roles");
            checked += 1;
        }
    }
    assert!(checked > 300, "only {checked} files were found");
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
    // Only a program may choose its allocator.
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
    // The tests act as the collector.
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
    // The tests use only the names of fail points.
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
        "bytes",
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
