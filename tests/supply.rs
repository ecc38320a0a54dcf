//! Checks everything that may be linked against the lists in deny.toml: licenses, sources and
//! banned crates.
//!
//! `cargo deny check` uses the same lists. It also knows security advisories, but takes minutes to
//! build, so people run it and CI does not.
#![allow(clippy::unwrap_used, reason = "all of this program is tests")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rules() -> Value {
    toml::from_str(&fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

/// Returns all packages of the lock file that some target and feature needs.
fn packages() -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["metadata", "--format-version=1", "--locked", "--all-features"])
        .current_dir(root());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    packages
}

fn texts(value: &Value) -> BTreeSet<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Whether what is allowed satisfies an SPDX expression. The old form `A/B` means `A OR B`.
fn met(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ")
        .replace(" WITH ", "+WITH+");
    let tokens: Vec<_> =
        spaced.split_whitespace().map(|token| token.replace("+WITH+", " WITH ")).collect();
    let mut tokens = tokens.iter().map(String::as_str).peekable();
    any(&mut tokens, allowed) && tokens.peek().is_none()
}

fn any<'b, I: Iterator<Item = &'b str>>(
    tokens: &mut std::iter::Peekable<I>,
    allowed: &dyn Fn(&str) -> bool,
) -> bool {
    let mut so = all(tokens, allowed);
    while tokens.next_if_eq(&"OR").is_some() {
        so |= all(tokens, allowed);
    }
    so
}

fn all<'b, I: Iterator<Item = &'b str>>(
    tokens: &mut std::iter::Peekable<I>,
    allowed: &dyn Fn(&str) -> bool,
) -> bool {
    let mut so = one(tokens, allowed);
    while tokens.next_if_eq(&"AND").is_some() {
        so &= one(tokens, allowed);
    }
    so
}

fn one<'b, I: Iterator<Item = &'b str>>(
    tokens: &mut std::iter::Peekable<I>,
    allowed: &dyn Fn(&str) -> bool,
) -> bool {
    match tokens.next() {
        Some("(") => any(tokens, allowed) & (tokens.next() == Some(")")),
        Some(license) => allowed(license),
        None => false,
    }
}

#[test]
fn every_licence_is_allowed_and_every_allowance_used() {
    let rules = rules();
    let allowed = texts(&rules["licenses"]["allow"]);
    let mut named = String::new();
    for package in packages() {
        let license = package["license"].as_str().unwrap_or_default();
        assert!(
            met(license, &|one| allowed.contains(one)),
            "{}: {license:?} is not allowed",
            package["id"]
        );
        named.push_str(license);
    }
    let unused: Vec<_> = allowed.iter().filter(|one| !named.contains(**one)).collect();
    assert!(unused.is_empty(), "no crate has {unused:?} any more");
}

#[test]
fn every_crate_comes_from_the_registry_and_none_is_banned() {
    let rules = rules();
    let banned: BTreeSet<_> = rules["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["crate"].as_str().unwrap())
        .collect();
    assert!(!banned.is_empty());
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(name), "{name} is banned by deny.toml");
        let source = package["source"].as_str();
        assert!(source.is_none_or(|source| source == REGISTRY), "{name} comes from {source:?}");
        if source.is_some() {
            continue;
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let open = dependency["req"] == "*" && dependency["path"].is_null();
            assert!(!open, "{name} takes any version of {}", dependency["name"]);
        }
    }
}

#[test]
fn expressions_are_understood() {
    let allowed = |one: &str| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&one);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "(GPL-3.0 OR ISC) AND MIT",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(met(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "Apache-2.0",
        "(MIT",
        "MIT)",
        "GPL-3.0 OR (MIT AND GPL-3.0)",
    ] {
        assert!(!met(bad, &allowed), "{bad}");
    }
}
