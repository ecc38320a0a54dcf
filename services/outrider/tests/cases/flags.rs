//! Flags of the client that no other test uses. Each changes what a command does.

use serde_json::Value;

use crate::{Dev, support::succeeded};

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[test]
fn pages_and_filters_narrow_lists() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let endpoint = dev.json(
        home,
        &["endpoints", "create", "--url", "http://127.0.0.1:2/", "--max-in-flight", "3"],
    );
    assert_eq!(endpoint["endpoint"]["max_in_flight"], 3);
    let id = text(&endpoint["endpoint"], "endpoint_id");
    dev.text(home, &["subscriptions", "create", id, "a", "b"]);
    for event_type in ["a", "b"] {
        dev.text(home, &["publish", event_type, "1"]);
    }
    let first = dev.json(home, &["events", "list", "--page-size", "1"]);
    let second = dev.json(
        home,
        &["events", "list", "--page-token", text(&first, "next_page_token"), "--page-size", "1"],
    );
    assert_eq!(
        (first["events"][0]["event_type"].as_str(), second["events"][0]["event_type"].as_str()),
        (Some("b"), Some("a"))
    );
    let of_b = dev.json(home, &["deliveries", "list", "--type", "b"]);
    assert_eq!(
        (of_b["deliveries"].as_array().unwrap().len(), text(&of_b["deliveries"][0], "event_type")),
        (1, "b")
    );

    dev.process.stop();
    let audit = |arguments: &[&str]| {
        let mut command =
            crate::support::outrider(home, &[&["verify-ledger", "--json"], arguments].concat());
        command
            .env("OUTRIDER_DATABASE_URL", "sqlite://data/outrider.db")
            .env("OUTRIDER_SECRETS_MASTER_KEY_FILE", "data/master.key");
        serde_json::from_str::<Value>(&succeeded(command.output().unwrap())).unwrap()
    };
    let all = audit(&["--batch", "1", "--list", "1"]);
    let other = audit(&["--project", "prj_00000000000000000000000001"]);
    assert_eq!(
        (&all["total"]["events"], &other["total"]["events"]),
        (&2.into(), &0.into()),
        "{all} {other}"
    );
}

#[test]
fn what_is_made_and_changed_has_what_the_flags_say() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let project = "prj_0000000000000000000000000a";
    let create = [
        "projects",
        "create",
        "Own",
        "--id",
        project,
        "--schema-validation",
        "warn",
        "--payload-retention",
        "1h",
    ];
    let made = dev.json(home, &create);
    assert_eq!(
        (text(&made, "project_id"), text(&made, "schema_validation")),
        (project, "SCHEMA_VALIDATION_WARN")
    );
    assert_eq!(made["payload_retention"], "3600s");

    let id = "ep_0000000000000000000000000b";
    dev.text(home, &["endpoints", "create", "--url", "http://127.0.0.1:2/", "--id", id]);
    let update = [
        "endpoints",
        "update",
        id,
        "--url",
        "http://127.0.0.1:3/",
        "--header",
        "x-a=1",
        "--metadata",
        "m=2",
        "--owner",
        "o",
        "--max-in-flight",
        "7",
    ];
    let updated = dev.json(home, &update);
    assert_eq!(
        (&updated["http"]["url"], &updated["headers"]["x-a"]),
        (&"http://127.0.0.1:3/".into(), &"1".into()),
        "{updated}"
    );
    assert_eq!(
        (&updated["metadata"]["m"], &updated["owner_id"]),
        (&"2".into(), &"o".into()),
        "{updated}"
    );

    let subscription = "sub_0000000000000000000000000c";
    assert_eq!(
        text(
            &dev.json(home, &["subscriptions", "create", id, "a", "--id", subscription]),
            "subscription_id"
        ),
        subscription
    );
    assert_eq!(
        dev.json(home, &["subscriptions", "update", subscription, "--name", "n"])["name"],
        "n"
    );
    assert_eq!(
        dev.json(home, &["subscriptions", "update", subscription, "--clear", "name"])["name"],
        ""
    );

    assert_eq!(dev.json(home, &["event-types", "create", "a", "--deprecated"])["deprecated"], true);
    assert_eq!(
        dev.json(home, &["event-types", "update", "a", "--description", "d"])["description"],
        "d"
    );

    let key = dev.json(home, &["keys", "create", "k", "--scopes", "events_read"]);
    let id = text(&key["api_key"], "api_key_id");
    let updated = dev.json(home, &["keys", "update", id, "--expires", "2100-01-01T00:00:00Z"]);
    assert_eq!(text(&updated, "expire_time"), "2100-01-01T00:00:00Z");
    dev.process.stop();
}
