//! The command line as users see it: the real binary and real processes.
#![allow(clippy::unwrap_used, reason = "all of this program is tests")]

#[path = "cases/event_types.rs"]
mod event_types;
#[path = "cases/flags.rs"]
mod flags;
#[path = "cases/following.rs"]
mod following;
#[path = "cases/health.rs"]
mod health;
#[path = "cases/installation.rs"]
mod installation;
#[path = "cases/secrets.rs"]
mod secrets;
mod support;
#[path = "cases/usage.rs"]
mod usage;
#[path = "cases/words.rs"]
mod words;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::Instant,
};

use serde_json::Value;
use support::{PATIENCE, Running, failed, outrider, run_with, succeeded};

/// A running `outrider dev`, and how to call it.
struct Dev {
    process: Running,
    server: String,
    project: String,
    key: String,
}

impl Dev {
    fn start(home: &Path, more: &[&str]) -> Self {
        let arguments = [&["dev", "--data", "data", "--listen", "127.0.0.1:0"], more].concat();
        let process = Running::start(outrider(home, &arguments));
        let word = |name: &str| {
            process
                .line(name)
                .split_whitespace()
                .find(|word| word.contains(['_', ':']))
                .unwrap()
                .to_owned()
        };
        let (server, project, key) = (word("gateway "), word("project "), word("API key "));
        process.line("deliveries list");
        Self { process, server, project, key }
    }

    fn command(&self, home: &Path, arguments: &[&str]) -> Command {
        let mut command = outrider(home, arguments);
        command
            .env("OUTRIDER_SERVER", &self.server)
            .env("OUTRIDER_API_KEY", &self.key)
            .env("OUTRIDER_PROJECT", &self.project);
        command
    }

    fn text(&self, home: &Path, arguments: &[&str]) -> String {
        succeeded(self.command(home, arguments).output().unwrap())
    }

    fn json(&self, home: &Path, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(home, &[arguments, &["--json"]].concat())).unwrap()
    }

    /// Returns the text of an answer over REST.
    fn rest(&self, collection: &str) -> String {
        let host = self.server.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        let Self { project, key, .. } = self;
        write!(
            stream,
            "GET /v1/projects/{project}/{collection} HTTP/1.1\r\nHost: {host}\r\nAuthorization: \
                Bearer {key}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Polls until the event has its one delivery, in this state.
    fn delivery(&self, home: &Path, event: &str, status: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let page = self.json(home, &["deliveries", "list", "--event", event]);
            if page["deliveries"][0]["status"] == status {
                return page["deliveries"][0].clone();
            }
            assert!(Instant::now() < end, "not {status}: {page}");
        }
    }
}

#[test]
fn an_event_goes_from_the_command_line_to_a_listener_and_a_restart_finds_it_again() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let stored = home.join("data/dev.json");
    assert_eq!(std::fs::metadata(&stored).unwrap().permissions().mode() & 0o777, 0o600);

    let secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let listener = Running::start(outrider(home, &["listen", "0", "--secret", secret]));
    let url = listener.line("listening").split_whitespace().nth(1).unwrap().to_owned();
    let created = dev.json(
        home,
        &["endpoints", "create", "--url", &url, "--secret", secret, "--header", "x-a=b"],
    );
    assert_eq!(created["secret"], secret);
    let endpoint = created["endpoint"]["endpoint_id"].as_str().unwrap();
    dev.text(home, &["subscriptions", "create", endpoint, "invoice.*"]);

    let published =
        dev.json(home, &["publish", "invoice.paid", "{\"amount\":  42.0}", "--metadata", "a=b"]);
    assert_eq!(published["delivery_count"], 1);
    let event = published["event_id"].as_str().unwrap();
    listener.line("signature verified");
    assert!(listener.line("webhook-id: ").ends_with(event));
    listener.line("{\"amount\":  42.0}");

    let delivery = dev.delivery(home, event, "DELIVERY_STATUS_DELIVERED");
    let id = delivery["delivery_id"].as_str().unwrap();
    assert_eq!(delivery["last_status_code"], 204);
    assert!(dev.text(home, &["deliveries", "list"]).contains("delivered"));
    let attempts = dev.json(home, &["deliveries", "attempts", id]);
    let attempt = attempts["attempts"][0]["attempt_id"].as_str().unwrap();
    assert_eq!(
        dev.json(home, &["deliveries", "attempt", attempt])["outcome"],
        "ATTEMPT_OUTCOME_SUCCEEDED"
    );
    for (arguments, collection) in [
        (["endpoints", "get", endpoint], format!("endpoints/{endpoint}")),
        (["events", "get", event], format!("events/{event}")),
        (["deliveries", "get", id], format!("deliveries/{id}")),
        (["deliveries", "attempt", attempt], format!("attempts/{attempt}")),
        (["events", "list", "--page-size=1"], "events?page_size=1".to_owned()),
    ] {
        let text = dev.text(home, &[&arguments[..], &["--json"]].concat());
        assert_eq!(text.trim_end(), dev.rest(&collection), "{arguments:?}");
    }
    assert!(
        dev.text(home, &["events", "get", event, "--json"])
            .contains("\"data\":{\"amount\":  42.0}")
    );
    assert_eq!(dev.json(home, &["deliveries", "retry", id])["replay_number"], 1);
    listener.line("signature verified");

    let (server, project, key) = (dev.server.clone(), dev.project.clone(), dev.key.clone());
    dev.process.stop();
    let (code, _) = failed(
        outrider(
            home,
            &["events", "list", "--server", &server, "--key", &key, "--project", &project],
        )
        .output()
        .unwrap(),
    );
    assert_eq!(code, 3);
    let again = Dev::start(home, &[]);
    assert_eq!((&again.project, &again.key), (&project, &key));
    assert_eq!(again.json(home, &["events", "get", event])["event_id"], event);
    again.process.stop();

    let reset = Dev::start(home, &["--reset"]);
    assert_ne!(reset.key, key);
    assert_eq!(reset.json(home, &["events", "list"])["events"].as_array().unwrap().len(), 0);
    reset.process.stop();
    listener.stop();
}

#[test]
fn a_listener_with_another_secret_and_a_failing_one_say_so() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let other = "whsec_OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg=";
    for (arguments, verdict, status) in [
        (vec!["listen", "0", "--secret", other], "NOT VERIFIED", 401),
        (vec!["listen", "0", "--status", "503"], "not checked", 503),
    ] {
        let listener = Running::start(outrider(home, &arguments));
        let url = listener.line("listening").split_whitespace().nth(1).unwrap().to_owned();
        let created = dev.json(home, &["endpoints", "create", "--url", &url]);
        let endpoint = created["endpoint"]["endpoint_id"].as_str().unwrap();
        dev.text(home, &["subscriptions", "create", endpoint, verdict.split(' ').next().unwrap()]);
        let published =
            dev.json(home, &["publish", verdict.split(' ').next().unwrap(), "\"\\u001b[2J\""]);
        listener.line(verdict);
        let end = Instant::now() + PATIENCE;
        let event = published["event_id"].as_str().unwrap();
        let last_status = || {
            let page = dev.json(home, &["deliveries", "list", "--event", event]);
            page["deliveries"][0]["last_status_code"].clone()
        };
        while last_status() != status {
            assert!(Instant::now() < end, "no attempt was answered {status}");
        }
        listener.stop();
    }
    dev.process.stop();
}

#[test]
fn many_lines_are_published_and_each_refusal_is_told() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let mut lines: String = (0..2_500)
        .map(|number| format!("{{\"event_type\": \"a.b\", \"data\": {number}}}\n"))
        .collect();
    let good = run_with(dev.command(home, &["publish", "--lines", "-", "--json"]), &lines);
    let summary: Value = serde_json::from_str(&succeeded(good)).unwrap();
    assert_eq!((&summary["accepted"], &summary["refused"]), (&2_500.into(), &0.into()));

    lines.push_str("\nnot json\n{\"event_type\": \"not a type\", \"data\": 1}\n");
    std::fs::write(home.join("events.ndjson"), lines).unwrap();
    let output = dev.command(home, &["publish", "--lines", "events.ndjson"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("2500 accepted"));
    let (code, errors) = failed(output);
    assert_eq!(code, 1);
    assert!(
        errors.contains("line 2502: ") && errors.contains("line 2503: INVALID_FIELD"),
        "{errors}"
    );

    // A stream with a name may be sent again.
    for duplicates in [0, 2] {
        let lines = "{\"event_type\": \"a\", \"data\": 1}\n{\"event_type\": \"b\", \"data\": 2}\n";
        let again = run_with(
            dev.command(home, &["publish", "--lines", "-", "--stream", "a-run", "--json"]),
            lines,
        );
        let summary: Value = serde_json::from_str(&succeeded(again)).unwrap();
        assert_eq!((&summary["accepted"], &summary["duplicates"]), (&2.into(), &duplicates.into()));
    }
    dev.process.stop();
}

#[test]
fn every_noun_is_managed_and_refusals_are_explained() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let project =
        dev.json(home, &["projects", "create", "Other"])["project_id"].as_str().unwrap().to_owned();
    assert_eq!(dev.json(home, &["projects", "update", &project, "--name", "New"])["name"], "New");
    assert!(dev.text(home, &["projects", "list"]).contains("New"));
    dev.text(home, &["projects", "delete", &project]);

    let key =
        dev.json(home, &["keys", "create", "reader", "--scopes", "events_read,endpoints_read"]);
    let (id, token) =
        (key["api_key"]["api_key_id"].as_str().unwrap(), key["token"].as_str().unwrap());
    assert_eq!(key["api_key"]["project_id"], dev.project.as_str());
    assert!(dev.text(home, &["keys", "list"]).contains("events_read, endpoints_read"));
    let refused = dev.command(home, &["publish", "a.b", "1", "--key", token]).output().unwrap();
    let (code, errors) = failed(refused);
    assert!(code == 1 && errors.contains("MISSING_SCOPE"), "{errors}");
    assert_eq!(dev.json(home, &["keys", "update", id, "--name", "r"])["name"], "r");
    dev.text(home, &["keys", "delete", id]);

    let created = dev.json(
        home,
        &[
            "endpoints",
            "create",
            "--url",
            "http://127.0.0.1:2/",
            "--description",
            "d",
            "--owner",
            "o",
        ],
    );
    let endpoint = created["endpoint"]["endpoint_id"].as_str().unwrap();
    let update = [
        "endpoints",
        "update",
        endpoint,
        "--state",
        "paused",
        "--timeout",
        "5s",
        "--clear",
        "description,owner_id",
    ];
    let updated = dev.json(home, &update);
    let both = [&update[..], &["--description", "d"]].concat();
    let (code, errors) = failed(dev.command(home, &both).output().unwrap());
    assert!(code == 2 && errors.contains("description is named twice"), "{errors}");
    assert_eq!(
        (&updated["state"], &updated["timeout"]),
        (&"ENDPOINT_STATE_PAUSED".into(), &"5s".into())
    );
    assert_eq!((&updated["description"], &updated["owner_id"]), (&"".into(), &"".into()));
    assert_eq!(dev.json(home, &["endpoints", "secret", endpoint])["secret"], created["secret"]);
    let subscription = dev.json(home, &["subscriptions", "create", endpoint, "a.*", "b"]);
    let id = subscription["subscription_id"].as_str().unwrap();
    let updated = dev.json(home, &["subscriptions", "update", id, "--event-types", "c,d.*"]);
    assert_eq!(updated["event_types"], serde_json::json!(["c", "d.*"]));
    dev.text(home, &["subscriptions", "delete", id]);
    assert!(dev.text(home, &["endpoints", "get", endpoint]).contains("paused"));
    dev.text(home, &["endpoints", "delete", endpoint]);

    let (code, errors) =
        failed(dev.command(home, &["publish", "not a type", "1"]).output().unwrap());
    assert!(
        code == 1 && errors.contains("INVALID_FIELD") && errors.contains("event_type: "),
        "{errors}"
    );
    let (code, errors) =
        failed(dev.command(home, &["endpoints", "get", endpoint]).output().unwrap());
    assert!(code == 1 && errors.contains("NOT_FOUND"), "{errors}");
    dev.process.stop();
}

#[test]
fn a_profile_names_the_server_and_the_key() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let directory = home.join(".config/outrider");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("config.toml");
    let Dev { server, key, project, .. } = &dev;
    std::fs::write(
        &path,
        format!("[profiles.x]\nserver = \"{server}\"\nkey = \"{key}\"\nproject = \"{project}\"\n"),
    )
    .unwrap();
    let list = ["events", "list", "--profile", "x"];
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, errors) = failed(outrider(home, &list).output().unwrap());
    assert!(code == 2 && errors.contains("chmod 600"), "{errors}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    succeeded(outrider(home, &list).output().unwrap());
    dev.process.stop();
}

#[test]
fn the_configuration_is_explained_and_checked() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::write(home.join("o.toml"), "[dispatch]\nfeed_batch = 7\n").unwrap();
    let mut command = outrider(home, &["config", "--config", "o.toml", "--set", "log.level=debug"]);
    command
        .env("OUTRIDER_SECRETS_MASTER_KEY", "k1:c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=")
        .env("OUTRIDER_API_KEY", "ork_unused");
    let text = succeeded(command.output().unwrap());
    let origin = |key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .unwrap()
            .split_once("# ")
            .unwrap()
            .1
            .to_owned()
    };
    assert!(!text.contains("c2VjcmV0") && !text.contains("ork_unused"), "{text}");
    assert_eq!(origin("master_key "), "variable OUTRIDER_SECRETS_MASTER_KEY");
    assert_eq!(origin("feed_batch "), "file o.toml");
    assert_eq!(origin("level "), "flag --set");
    assert_eq!(origin("shards "), "default");

    assert_eq!(
        succeeded(outrider(home, &["config", "check", "--config", "o.toml"]).output().unwrap()),
        ""
    );
    std::fs::write(home.join("o.toml"), "[queue]\nprefx = \"x\"\n").unwrap();
    let (code, errors) =
        failed(outrider(home, &["config", "check", "--config", "o.toml"]).output().unwrap());
    assert!(code == 1 && errors.contains("prefx"), "{errors}");
    let (code, errors) =
        failed(outrider(home, &["config", "check", "--set", "log.level=a=b=c"]).output().unwrap());
    assert!(code == 1 && errors.contains("log.level"), "{errors}");
    // Settings that a start would refuse, and settings without an effect.
    for (setting, why) in [
        ("egress.max_tunnels=0", "egress.max_tunnels"),
        ("queue.prefix=x", "queue.prefix: has no effect without a queue.url of Redis"),
        ("database.url=sqlite://x.db?mode=ro", "database.url: must have nothing after the file"),
        ("database.url=sqlite:", "database.url: must name a file"),
        ("log.level=verbose", "log.level"),
    ] {
        let (code, errors) =
            failed(outrider(home, &["config", "check", "--set", setting]).output().unwrap());
        assert!(code == 1 && errors.contains(why), "{setting}: {errors}");
    }
}

/// An error says on standard error what failed, where, in whose words, and what to do, and contains
/// no password.
#[test]
fn failures_of_the_database_tell_why_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let nobody = "database.url=postgres://me:hunter2@127.0.0.1:1/x";
    let quick = "database.acquire_timeout=300ms";
    for command in
        [&["migrate", "up"][..], &["migrate", "status"], &["bootstrap"], &["verify-ledger"]]
    {
        let mut arguments = command.to_vec();
        arguments.extend(["--set", nobody, "--set", quick, "--set", "secrets.master_key_file=key"]);
        let (code, errors) = failed(outrider(home, &arguments).output().unwrap());
        let name = command.join(" ");
        assert_eq!(code, 1, "{errors}");
        let told = format!(
            "outrider: {name}: database.url: cannot connect to 127.0.0.1:1 as me, database x: \
                Connection refused"
        );
        assert!(errors.contains(&told) && errors.contains("\n  nothing listens there"), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    let (_, errors) = failed(
        outrider(
            home,
            &[
                "verify-ledger",
                "--set",
                "database.url=sqlite://absent/x.db",
                "--set",
                "secrets.master_key_file=key",
            ],
        )
        .output()
        .unwrap(),
    );
    assert!(
        errors.contains("unable to open database file (14)")
            && errors.contains("\n  the directory"),
        "{errors}"
    );
}

#[test]
fn payloads_are_erased_at_once_or_after_a_time() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let update = |length: &str| {
        dev.json(home, &["projects", "update", &dev.project, "--payload-retention", length])
    };
    assert_eq!(update("30d")["payload_retention"], "2592000s");
    assert!(update("none").get("payload_retention").is_none());
    let refused = dev
        .command(home, &["projects", "update", &dev.project, "--payload-retention", "1s"])
        .output()
        .unwrap();
    assert!(failed(refused).1.contains("project.payload_retention"));
    let event = dev.json(home, &["publish", "person.registered", "{\"name\": \"Ada\"}"]);
    let id = event["event_id"].as_str().unwrap();
    assert_eq!(dev.json(home, &["events", "get", id])["data"]["name"], "Ada");
    let erased = dev.json(home, &["events", "erase", id]);
    assert!(erased["payload_erase_time"].is_string() && erased.get("data").is_none(), "{erased}");
    let shown = dev.text(home, &["events", "get", id]);
    assert!(shown.contains("payload_erase_time") && !shown.contains("Ada"), "{shown}");
}
