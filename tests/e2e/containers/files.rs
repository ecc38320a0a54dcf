//! What the two files say. This starts nothing but the command line.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::Result;
use outrider_tests::{cluster::binary, leash::Directory};
use serde_json::Value;

use super::parsed::{
    compose, dockerfile, environment, image, make_secrets, only, repository, unescaped, words,
};

/// Whether an image comes from a registry and has a version.
fn has_version(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest")
}

fn known_command(arguments: &[String]) -> bool {
    let mut help = Command::new(binary().expect("there is a binary"));
    help.arg("help").args(arguments).output().expect("it runs").status.success()
}

#[test]
fn the_image_has_a_process_without_rights_and_commands_that_exist() {
    let (all, image) = (dockerfile().unwrap(), image().unwrap());
    let stages: BTreeSet<_> = all
        .iter()
        .filter(|(word, _)| word == "FROM")
        .filter_map(|(_, from)| from.split_once(" AS "))
        .collect();
    for (_, from) in all.iter().filter(|(word, _)| word == "FROM") {
        let base = from.split(' ').next().unwrap();
        assert!(base == "scratch" || has_version(base), "{from}");
    }
    assert!(stages.iter().any(|(base, name)| *name == "build"
        && base.starts_with("rust:")
        && base.ends_with("-bookworm")));
    // The final image has the same C library as the stage that links.
    assert!(only(&image, "FROM").unwrap().starts_with("gcr.io/distroless/cc-debian12:"));
    assert!(
        !image.iter().any(|(word, _)| word == "RUN" || word == "SHELL" || word == "ADD"),
        "there is no shell to run anything"
    );
    assert_eq!(only(&image, "USER").unwrap(), "65532:65532");

    let list = |text: &str| words(&serde_json::from_str(text).unwrap()).unwrap();
    let entry = list(&only(&image, "ENTRYPOINT").unwrap());
    let [program] = entry.as_slice() else { panic!("{entry:?}") };
    let copied = |copy: &str| {
        copy.split(' ').next_back() == Some(program.as_str()) && copy.contains("--from=build ")
    };
    assert!(
        image.iter().any(|(word, copy)| word == "COPY" && copied(copy)),
        "nothing is copied to {program}"
    );
    assert!(known_command(&list(&only(&image, "CMD").unwrap())));
    let check = only(&image, "HEALTHCHECK").unwrap();
    let check = list(check.split_once("CMD ").unwrap().1);
    assert!(check[0] == *program && check.len() > 1 && known_command(&check[1..]), "{check:?}");
    assert!(!known_command(&["nonsense".to_owned()]));

    let variables = environment(&image, &Value::Null).unwrap();
    let port = variables["OUTRIDER_GATEWAY_LISTEN"].rsplit(':').next().unwrap().to_owned();
    assert_eq!(only(&image, "EXPOSE").unwrap(), port);
    let publishes = format!("127.0.0.1:{port}:{port}");
    if let Some(compose) = compose().unwrap() {
        assert_eq!(words(&compose["services"]["outrider"]["ports"]).unwrap(), [publishes]);
    }
}

#[test]
fn what_the_build_needs_is_not_kept_from_it() {
    let ignored = fs::read_to_string(repository().join(".dockerignore")).unwrap();
    let ignored: BTreeSet<_> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(ignored.contains(".git") && ignored.contains("target") && ignored.contains("**/*.key"));
    // Everything that cargo or .ci/release reads.
    let needed = [
        ".cargo",
        ".ci",
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "migrations",
        "proto",
        "services",
        "tests",
    ];
    for name in needed {
        assert!(repository().join(name).exists() && !ignored.contains(name), "{name}");
    }
    let release = repository().join(".ci/release");
    assert!(
        dockerfile()
            .unwrap()
            .iter()
            .any(|(word, text)| word == "RUN" && text.contains(" .ci/release /published"))
    );
    assert!(Command::new("bash").arg("-n").arg(release).status().unwrap().success());
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().expect("compose.yaml has services").iter()
}

#[test]
fn no_service_has_rights_that_it_does_not_need() {
    let Some(compose) = compose().unwrap() else { return };
    let mut published = Vec::new();
    for (name, service) in services(&compose) {
        assert!(has_version(service["image"].as_str().unwrap()), "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(words(&service["cap_drop"]).unwrap(), ["ALL"], "{name}");
        assert_eq!(words(&service["security_opt"]).unwrap(), ["no-new-privileges:true"], "{name}");
        for key in ["privileged", "cap_add", "devices", "pid", "ipc"] {
            assert!(service[key].is_null(), "{name}: {key}");
        }
        // A service with a network runs as nobody in particular. The service that owns the secrets
        // has no network.
        let root = matches!(service["user"].as_str().unwrap(), "0:0" | "0" | "root");
        assert_eq!(root, service["network_mode"] == "none", "{name}");
        for volume in words(&service["volumes"]).unwrap() {
            let secret = volume.split(':').next().unwrap().ends_with("-secrets");
            assert_eq!(secret && !root, volume.ends_with(":ro"), "{name}: {volume}");
        }
        published.extend(words(&service["ports"]).unwrap_or_default());
    }
    assert!(published.iter().all(|port| port.starts_with("127.0.0.1:")), "{published:?}");
}

#[test]
fn services_wait_for_what_they_need() {
    let Some(compose) = compose().unwrap() else { return };
    let outrider = &compose["services"]["outrider"];
    assert!(outrider["healthcheck"].is_null(), "the image has it");
    for (name, service) in services(&compose) {
        let ends = service["restart"] == "no";
        for (needed, how) in service["depends_on"].as_object().into_iter().flatten() {
            let other = &compose["services"][needed];
            let once = other["restart"] == "no";
            let expected = if once { "service_completed_successfully" } else { "service_healthy" };
            assert_eq!(how["condition"], expected, "{name} needs {needed}");
            assert!(
                once || other["healthcheck"]["test"].is_array(),
                "{needed} has no health check"
            );
        }
        // Without it, `up --wait` takes the end of the service for a failure.
        assert!(
            !ends || outrider["depends_on"][name].is_object(),
            "the server does not wait for {name}"
        );
    }
    for (name, service) in services(&compose) {
        for volume in words(&service["volumes"]).unwrap() {
            let named = volume.split(':').next().unwrap();
            assert!(
                compose["volumes"].as_object().unwrap().contains_key(named),
                "{name}: {volume}"
            );
        }
        for network in words(&service["networks"]).unwrap_or_default() {
            assert!(
                compose["networks"].as_object().unwrap().contains_key(&network),
                "{name}: {network}"
            );
        }
    }
}

/// The configuration of the server reads exactly the secrets that `secrets` makes, and every
/// variable is a key of the configuration.
#[test]
fn every_variable_is_a_key_and_every_secret_is_made() {
    let Some(compose) = compose().unwrap() else { return };
    let made = Directory::create().unwrap();
    make_secrets(&compose, made.path()).unwrap();
    let read = |file: &str| fs::read_to_string(made.path().join(file)).unwrap();
    let first =
        (read("outrider/master_key"), read("outrider/database_url"), read("postgres/password"));
    assert!(first.1.contains(&first.2) && first.2.len() == 48);
    assert!(read("outrider/queue_url").contains(&read("redis/password")));
    make_secrets(&compose, made.path()).unwrap();
    assert_eq!(
        first,
        (read("outrider/master_key"), read("outrider/database_url"), read("postgres/password")),
        "made once"
    );

    let directory = made.path().join("outrider");
    for name in ["outrider", "migrate"] {
        let service = &compose["services"][name];
        let variables = environment(&image().unwrap(), service).unwrap();
        let command = words(&service["command"]).unwrap();
        assert!(known_command(&command), "{name}: {command:?}");
        let mut config = Command::new(binary().unwrap());
        config.args(["config", "--json"]).env_clear();
        for (key, value) in &variables {
            config.env(key, value.replace("/etc/outrider", &directory.display().to_string()));
        }
        let output = config.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(variables.keys().any(|key| key.starts_with("OUTRIDER_")));
        for (key, value) in variables.iter().filter(|(key, _)| key.starts_with("OUTRIDER_")) {
            // The file of a secret is found by its path, any other variable by its name.
            let path = value.replace("/etc/outrider", &directory.display().to_string());
            assert!(
                told.contains(key.as_str()) || (key.ends_with("_FILE") && told.contains(&path)),
                "{key}: {told}"
            );
        }
        for secret in [&first.0, &first.2] {
            assert!(!told.contains(secret.as_str()));
        }
    }
    // Volumes are mounted where the variables point.
    for (service, volume, path) in [
        ("outrider", "outrider-secrets", "/etc/outrider"),
        ("migrate", "outrider-secrets", "/etc/outrider"),
        ("postgres", "postgres-secrets", "/run/secrets"),
        ("redis", "redis-secrets", "/run/secrets"),
    ] {
        let volumes = words(&compose["services"][service]["volumes"]).unwrap();
        assert!(volumes.contains(&format!("{volume}:{path}:ro")), "{service}: {volumes:?}");
    }
    let password = &compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"];
    assert_eq!(unescaped(password.as_str().unwrap()), "/run/secrets/password");
}

/// The build for users has no debug information. The published binary is the same code.
#[test]
fn a_release_has_no_debug_information() -> Result<()> {
    let manifest: Value = toml::from_str(&fs::read_to_string(repository().join("Cargo.toml"))?)?;
    let (release, dist) = (&manifest["profile"]["release"], &manifest["profile"]["dist"]);
    assert_eq!((&release["debug"], &release["strip"]), (&false.into(), &"symbols".into()));
    assert_eq!(dist["inherits"], "release");
    let differs: Vec<_> =
        dist.as_object().unwrap().keys().filter(|key| *key != "inherits").collect();
    assert_eq!(differs, ["debug", "strip"]);
    Ok(())
}
