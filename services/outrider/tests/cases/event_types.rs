//! The catalog of event types, and the warnings and refusals of publishing.

use std::time::Instant;

use serde_json::Value;

use crate::{
    Dev,
    support::{PATIENCE, failed, run_with, succeeded},
};

#[test]
fn event_types_are_managed_and_publishing_tells_what_they_say() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let schema = "{\n  \"type\": \"object\",\n  \"required\": [\"amount\"]\n}\n";
    std::fs::write(home.join("paid.json"), schema).unwrap();
    let made = dev.json(
        home,
        &[
            "event-types",
            "create",
            "invoice.paid",
            "--schema",
            "paid.json",
            "--description",
            "Paid",
        ],
    );
    assert_eq!(
        (&made["event_type"], &made["schema"]["required"][0]),
        (&"invoice.paid".into(), &"amount".into())
    );
    let shown = dev.text(home, &["event-types", "get", "invoice.paid"]);
    assert!(
        shown.contains("Paid") && shown.contains("\"required\": [\n") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    // The answer of REST, apart from the white space within the schema.
    let rest: Value = serde_json::from_str(&dev.rest("event-types/invoice.paid")).unwrap();
    assert_eq!(dev.json(home, &["event-types", "get", "invoice.paid"]), rest);
    assert_eq!(
        dev.text(home, &["event-types", "list", "--json"]).trim_end(),
        dev.rest("event-types")
    );
    let table = dev.text(home, &["event-types", "list"]);
    assert!(
        table.trim_start().starts_with("TYPE")
            && table.contains("invoice.paid")
            && !table.contains("required"),
        "{table}"
    );

    let update = ["projects", "update", &dev.project, "--schema-validation", "reject"];
    assert_eq!(dev.json(home, &update)["schema_validation"], "SCHEMA_VALIDATION_REJECT");
    let end = Instant::now() + PATIENCE;
    let errors = loop {
        let output = dev.command(home, &["publish", "invoice.paid", "{}"]).output().unwrap();
        if !output.status.success() {
            break failed(output).1;
        }
        assert!(Instant::now() < end, "nothing is rejected");
    };
    assert!(
        errors.contains("PAYLOAD_SCHEMA_VIOLATION")
            && errors.contains("must have the property \"amount\""),
        "{errors}"
    );
    let deprecated = dev.json(
        home,
        &["event-types", "update", "invoice.paid", "--deprecated", "--clear", "schema"],
    );
    assert!(deprecated["deprecated"] == true && deprecated.get("schema").is_none(), "{deprecated}");
    let end = Instant::now() + PATIENCE;
    while !dev.command(home, &["publish", "invoice.paid", "{}"]).output().unwrap().status.success()
    {
        assert!(Instant::now() < end, "the schema is still there");
    }
    assert!(dev.text(home, &["publish", "invoice.paid", "{}"]).contains("event_type_deprecated"));
    let lines = run_with(
        dev.command(home, &["publish", "--lines", "-"]),
        "{\"event_type\": \"invoice.paid\", \"data\": 1}\n",
    );
    assert!(succeeded(lines).contains("1 with warnings"));
    let update = dev.json(home, &["event-types", "update", "invoice.paid", "--deprecated=false"]);
    assert_eq!(update["deprecated"], false);
    let stdin = run_with(
        dev.command(home, &["event-types", "create", "a.b", "--schema", "-"]),
        "{\"type\": \"money\"}",
    );
    let (code, errors) = failed(stdin);
    assert!(code == 1 && errors.contains("definition.schema/type: "), "{errors}");
    std::fs::write(home.join("empty.json"), " \n").unwrap();
    let (code, errors) = failed(
        dev.command(home, &["event-types", "create", "a.b", "--schema", "empty.json"])
            .output()
            .unwrap(),
    );
    assert!(code == 2 && errors.contains("bytes of JSON"), "{errors}");
    dev.text(home, &["event-types", "delete", "invoice.paid"]);
    let (code, _) =
        failed(dev.command(home, &["event-types", "get", "invoice.paid"]).output().unwrap());
    assert_eq!(code, 1);
    dev.process.stop();
}
