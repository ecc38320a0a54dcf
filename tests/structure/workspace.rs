//! Reads what the checks need: the crates of the workspace, and its files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

pub struct Package {
    pub root: PathBuf,
    /// The names of all dependencies, including those for tests and builds.
    pub dependencies: Vec<String>,
    /// The dependencies that are linked.
    pub linked: Vec<String>,
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub fn packages() -> BTreeMap<String, Package> {
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
    assert!(packages.len() > 15, "only {} crates were found", packages.len());
    packages
}

pub fn sources(directory: &Path) -> Vec<PathBuf> {
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
