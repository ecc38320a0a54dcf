//! Parses the two files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a directory of it")
        .to_owned()
}

/// Returns compose.yaml. If no Python here reads YAML, prints that the test is skipped and returns
/// `None`, or fails if nothing may be skipped.
pub fn compose() -> Result<Option<Value>> {
    let Some(python) = std::env::var_os("OUTRIDER_TEST_PYTHON") else {
        ensure!(
            std::env::var_os("OUTRIDER_TEST_STRICT").is_none(),
            "OUTRIDER_TEST_PYTHON is not set"
        );
        eprintln!(
            "SKIPPED: OUTRIDER_TEST_PYTHON names no Python with PyYAML; tests/run installs it"
        );
        return Ok(None);
    };
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(repository().join("compose.yaml"))
        .output()?;
    ensure!(output.status.success(), "compose.yaml: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}

/// An instruction of a Dockerfile: its keyword, and its arguments, including those on continued
/// lines.
pub type Instruction = (String, String);

pub fn dockerfile() -> Result<Vec<Instruction>> {
    let text = fs::read_to_string(repository().join("Dockerfile"))?;
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines
        .map(|line| line.strip_suffix('\\').map_or(format!("{line}\n"), |line| format!("{line} ")));
    let joined: String = joined.collect();
    let instructions = joined.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let (word, rest) = line
            .trim()
            .split_once(' ')
            .with_context(|| format!("an instruction without words: {line}"))?;
        ensure!(word.chars().all(|letter| letter.is_ascii_uppercase()), "no instruction: {line}");
        Ok((word.to_owned(), rest.trim().to_owned()))
    });
    instructions.collect()
}

/// Returns the instructions of the last stage, which makes the image.
pub fn image() -> Result<Vec<Instruction>> {
    let mut all = dockerfile()?;
    let last = all.iter().rposition(|(word, _)| word == "FROM").context("no FROM")?;
    Ok(all.split_off(last))
}

/// Returns the arguments of an instruction that the image has exactly once.
pub fn only(image: &[Instruction], word: &str) -> Result<String> {
    let found: Vec<_> = image.iter().filter(|(other, _)| other == word).collect();
    ensure!(found.len() == 1, "{} times {word}", found.len());
    Ok(found[0].1.clone())
}

/// Returns the list of an instruction or a service. It must be a list, which runs without a shell.
pub fn words(value: &Value) -> Result<Vec<String>> {
    let list = value.as_array().with_context(|| format!("no list: {value}"))?;
    list.iter()
        .map(|word| Ok(unescaped(word.as_str().with_context(|| format!("no text: {word}"))?)))
        .collect()
}

/// Returns a value of compose.yaml as a container sees it.
pub fn unescaped(text: &str) -> String {
    text.replace("$$", "$")
}

/// Returns the variables of the image, overridden by those of the service.
pub fn environment(image: &[Instruction], service: &Value) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (_, pair) in image.iter().filter(|(word, _)| word == "ENV") {
        let (name, value) = pair.split_once('=').with_context(|| format!("ENV {pair}"))?;
        variables.insert(name.to_owned(), value.to_owned());
    }
    for (name, value) in service["environment"].as_object().into_iter().flatten() {
        variables.insert(
            name.clone(),
            unescaped(value.as_str().with_context(|| format!("{name} is no text"))?),
        );
    }
    Ok(variables)
}

/// Runs the command of the service `secrets`, with its volumes as directories in `made`.
pub fn make_secrets(compose: &Value, made: &Path) -> Result<()> {
    let service = &compose["services"]["secrets"];
    for volume in ["postgres", "redis", "outrider"] {
        fs::create_dir_all(made.join(volume))?;
    }
    let mut command = words(&service["entrypoint"])?;
    let script =
        words(&service["command"])?.concat().replace("/made/", &format!("{}/", made.display()));
    command.push(script);
    let output = Command::new(&command[0]).args(&command[1..]).output()?;
    ensure!(output.status.success(), "secrets: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
