//! The generated pages of `docs/`: configuration, errors and metrics. The tests fail when a page is
//! not what the code says; with OUTRIDER_TEST_WRITE_DOCS=1 they write it.

use std::{fmt::Write as _, path::PathBuf};

use clap::CommandFactory as _;
use outrider_model::Reason;
use outrider_rpc::status::codes;
use outrider_telemetry::catalogue::SECTIONS as METRICS;
use toml::{Table, Value};

use crate::config::{
    self, Admin, Config, Database, Dispatch, Egress, Gateway, Ingest, Internal, Log, Operations,
    Queue, Secrets, Telemetry, Worker, early_secrets, variable,
};

const SECTIONS: [(&str, &[(&str, &str)]); 13] = [
    ("database", Database::DOCS),
    ("queue", Queue::DOCS),
    ("secrets", Secrets::DOCS),
    ("internal", Internal::DOCS),
    ("log", Log::DOCS),
    ("telemetry", Telemetry::DOCS),
    ("operations", Operations::DOCS),
    ("gateway", Gateway::DOCS),
    ("ingest", Ingest::DOCS),
    ("dispatch", Dispatch::DOCS),
    ("admin", Admin::DOCS),
    ("worker", Worker::DOCS),
    ("egress", Egress::DOCS),
];

fn configuration_page() -> String {
    let defaults = Table::try_from(Config::default()).unwrap();
    let mut page = String::from(
        "# Configuration\n\nGenerated from the code. Every key has a default. Stronger layers win: \
            defaults, the TOML file (`--config FILE` or \
         `OUTRIDER_CONFIG`), variables, flags (`--set section.key=value`). Unknown keys are \
         errors. Lengths of time have a unit: `500ms`, \
         `15s`, `24h`. What is secret may be given by a file, as `KEY_file`: its content counts \
         without the line's end; `outrider config` says which \
         file it was.\n",
    );
    for (section, docs) in SECTIONS {
        let values = defaults[section].as_table().unwrap();
        assert_eq!(values.len(), docs.len(), "{section}: every key is documented");
        write!(
            page,
            "\n## `[{section}]`\n\n| key | default | variable | meaning |\n|---|---|---|---|\n"
        )
        .unwrap();
        for (key, doc) in docs {
            let variable = variable(&format!("{section}.{key}"));
            let doc = doc.trim().replace('|', "\\|");
            writeln!(page, "| `{key}` | {} | `{variable}` | {doc} |", shown(&values[*key]))
                .unwrap();
            if early_secrets().any(|secret| secret == format!("{section}.{key}")) {
                let doc =
                    format!("A file that holds the value of `{key}`, which must not be given too.");
                writeln!(page, "| `{key}_file` | empty | `{variable}_FILE` | {doc} |").unwrap();
            }
        }
    }
    page
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("`[{}]`", items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        other => format!("`{other}`"),
    }
}

fn errors_page() -> String {
    let mut page = String::from(
        "# Errors\n\nGenerated from the code. gRPC callers get a `google.rpc.Status` with \
            `ErrorInfo` (domain `outrider.dev`), `BadRequest` with a \
         violation per field, and `RetryInfo` where a retry may help. REST callers get the same as \
         JSON under `error`. The reason is stable.\n\n\
         | reason | gRPC code | HTTP | meaning and what to do |\n|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let (code, http) = codes(*reason);
        writeln!(page, "| `{reason}` | `{code:?}` | {http} | {} |", reason.meaning()).unwrap();
    }
    page
}

fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from the code. Each process shows the metrics of the parts that \
            run in it at `/metrics` of its operations \
         listener (`operations.listen`), in the text format of Prometheus. Labels never name a \
         project, an endpoint, an event or a path. \
         docs/operations.md has alerts.\n",
    );
    for section in METRICS {
        write!(
            page,
            "\n## {}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n",
            section.name
        )
        .unwrap();
        for entry in section.entries {
            let labels: Vec<String> =
                entry.shape.labels.iter().map(|label| format!("`{label}`")).collect();
            let help = entry.shape.help.trim().replace('|', "\\|");
            writeln!(
                page,
                "| `{}` | {} | {} | {help} |",
                entry.shape.name,
                entry.kind,
                labels.join(", ")
            )
            .unwrap();
        }
    }
    page
}

fn check(name: &str, page: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("OUTRIDER_TEST_WRITE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/{name} is not what the code says: run the test with OUTRIDER_TEST_WRITE_DOCS=1"
    );
}

#[test]
fn the_configuration_page_is_current() {
    check("configuration.md", &configuration_page());
}

#[test]
fn the_errors_page_is_current() {
    check("errors.md", &errors_page());
}

#[test]
fn the_metrics_page_is_current() {
    check("metrics.md", &metrics_page());
}

/// The whole names of the commands that have no commands of their own.
fn leaves(command: &clap::Command, name: &str, into: &mut Vec<String>) {
    if command.get_subcommands().next().is_none()
        || command.is_args_conflicts_with_subcommands_set()
    {
        into.push(name.to_owned());
    }
    for inner in command.get_subcommands() {
        leaves(inner, &format!("{name} {}", inner.get_name()), into);
    }
}

#[test]
fn every_command_has_an_example() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).unwrap();
    let mut commands = Vec::new();
    leaves(&crate::cli::Cli::command(), "outrider", &mut commands);
    let examples: Vec<&str> = page.lines().filter(|line| line.contains("outrider ")).collect();
    for command in commands {
        assert!(
            examples.iter().any(|line| line.contains(&command)),
            "docs/cli.md has no example of `{command}`"
        );
    }
}

#[test]
fn secrets_in_configuration_do_not_show() {
    let config = Config {
        secrets: Secrets { master_key: config::Hidden("k:c2VjcmV0".into()), ..Secrets::default() },
        ..Config::default()
    };
    assert!(!format!("{config:?}").contains("c2VjcmV0"));
}
