//! The master key, and endpoint values that serve as secrets, from an operator's point of view.

use std::{fs, path::Path};

use crate::{
    installation::Serving,
    support::{Running, failed, outrider, succeeded},
};

const VALUES: [&str; 2] = ["value-of-a-header", "value-of-a-query"];

fn shows(text: &str) -> bool {
    VALUES.iter().any(|value| text.contains(value))
}

fn key_file(home: &Path) -> std::path::PathBuf {
    home.join("outrider-data/master.key")
}

/// Runs `serve` with this configuration, which must fail to start.
fn refused(home: &Path) -> String {
    let serve = [
        "serve",
        "--config",
        "o.toml",
        "--set",
        "gateway.listen=127.0.0.1:0",
        "--set",
        "operations.listen=",
    ];
    let (code, errors) = failed(outrider(home, &serve).output().unwrap());
    assert_eq!(code, 1, "{errors}");
    errors
}

#[test]
fn migrations_make_no_master_key_and_need_none() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let up = succeeded(outrider(home, &["migrate", "up"]).output().unwrap());
    assert!(up.contains("applied"), "{up}");
    for command in
        [&["migrate", "up"][..], &["migrate", "status"], &["verify-ledger"], &["migrate", "down"]]
    {
        succeeded(outrider(home, command).output().unwrap());
    }
    assert!(!key_file(home).exists());
}

#[test]
fn values_that_are_used_as_secrets_are_shown_to_few() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(home.join("o.toml"), "[log]\nlevel = \"info\"\n[egress]\nallow = [\"127.0.0.1\"]\n")
        .unwrap();
    let receiver = Running::start(outrider(home, &["listen", "0"]));
    let url = receiver.line("listening").split_whitespace().nth(1).unwrap().to_owned();
    let serving = Serving::start(home);
    let (url, header) = (format!("{url}?key={}", VALUES[1]), format!("x-key={}", VALUES[0]));
    let made = serving.json(&["endpoints", "create", "--url", &url, "--header", &header]);
    let endpoint = made["endpoint"]["endpoint_id"].as_str().unwrap().to_owned();
    let get = ["endpoints", "get", &endpoint];
    assert!(serving.json(&get)["http"]["url"] == url.as_str());

    let text = |arguments: &[&str]| succeeded(serving.command(arguments).output().unwrap());
    let reader =
        serving.json(&["keys", "create", "reader", "--scopes", "endpoints_read,events_read"]);
    let reader = reader["token"].as_str().unwrap().to_owned();
    let read = |arguments: &[&str]| {
        succeeded(serving.command(arguments).env("OUTRIDER_API_KEY", &reader).output().unwrap())
    };
    for shown in [text(&["endpoints", "list"]), read(&["endpoints", "list"]), read(&get)] {
        assert!(!shows(&shown) && shown.contains("?…"), "{shown}");
    }
    assert!(read(&get).contains("x-key"));
    // A mask that is sent back is refused, and the error names its field.
    let masked = format!("{}?…", url.split_once('?').unwrap().0);
    for (argument, value, field) in [
        ("--url", masked.as_str(), "endpoint.http.url"),
        ("--header", "x-key=…", "endpoint.headers[\"x-key\"]"),
    ] {
        let (code, errors) = failed(
            serving.command(&["endpoints", "update", &endpoint, argument, value]).output().unwrap(),
        );
        assert!(
            code == 1 && errors.contains(field) && errors.contains("is the mask of a hidden value"),
            "{errors}"
        );
    }
    assert_eq!(serving.json(&get)["http"]["url"], url.as_str());
    serving.process.stop();
    receiver.hang_up();
}

#[test]
fn a_master_key_is_checked_at_the_start_and_changed_in_place() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(home.join("o.toml"), "[log]\nlevel = \"info\"\n").unwrap();
    let serving = Serving::start(home);
    let made = serving.json(&[
        "endpoints",
        "create",
        "--url",
        "https://example.com/?key=value-of-a-query",
    ]);
    let (endpoint, secret) =
        (made["endpoint"]["endpoint_id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let (token, project) =
        (serving.key.clone(), made["endpoint"]["project_id"].as_str().unwrap().to_owned());
    serving.process.stop();

    let old = fs::read_to_string(key_file(home)).unwrap().trim().to_owned();
    let (id, _) = old.split_once(':').unwrap();
    let other = "dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU=";
    fs::write(key_file(home), format!("{id}:{other}")).unwrap();
    let errors = refused(home);
    assert!(
        errors.contains(&format!("key {id} is not the key of that id"))
            && errors.contains("had before"),
        "{errors}"
    );
    fs::write(key_file(home), format!("next:{other}")).unwrap();
    let errors = refused(home);
    assert!(
        errors.contains(&format!("key {id}, which is not given"))
            && errors.contains(&format!("{id}:BASE64")),
        "{errors}"
    );
    assert!(!errors.contains(other), "{errors}");

    fs::write(key_file(home), format!("next:{other},{old}")).unwrap();
    let sealed = succeeded(outrider(home, &["migrate", "up", "--seal-later"]).output().unwrap());
    assert!(!sealed.contains("sealed"), "{sealed}");
    let sealed = succeeded(outrider(home, &["migrate", "up"]).output().unwrap());
    assert!(
        sealed.contains("sealed   the headers and queries of endpoints: 1")
            && sealed.contains("signing secrets: 1"),
        "{sealed}"
    );
    fs::write(key_file(home), format!("next:{other}")).unwrap();
    let serving = Serving::again(home, token, project);
    assert_eq!(serving.json(&["endpoints", "secret", endpoint])["secret"], secret);
    let read = serving.json(&["endpoints", "get", endpoint]);
    assert_eq!(read["http"]["url"], "https://example.com/?key=value-of-a-query");
    serving.process.stop();
}
