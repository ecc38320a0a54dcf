//! The generated pages of `docs/`: configuration, errors and metrics. The tests fail when a page is
//! not what the code says; with OUTRIDER_TEST_WRITE_DOCS=1 they write it.

use std::{fmt::Write as _, path::PathBuf};

use clap::CommandFactory as _;
use outrider_model::Reason;
use outrider_rpc::status::codes;
use outrider_telemetry::catalog::SECTIONS as METRICS;
use toml::{Table, Value};

use crate::config::{Config, SECTIONS, Secrets, read_from_files, variable};

/// The width of generated pages.
const WIDTH: usize = 100;

const CONFIGURATION: &str = "\
    This page lists every key of the configuration. It is generated from the code. Every key has a \
    default. Later layers override earlier ones:

    1. the defaults,
    2. the TOML file (`--config FILE` or `OUTRIDER_CONFIG`),
    3. variables (`gateway.listen` is `OUTRIDER_GATEWAY_LISTEN`),
    4. flags (`--set gateway.listen=127.0.0.1:8080`).

    Unknown keys are errors. Lengths of time have a unit: `500ms`, `15s`, `24h`. Sizes are in \
    bytes. Lists in variables and flags are separated by commas. A secret can be given by a file, \
    as `KEY_file`: its content counts without the end of its line. `outrider config` shows the \
    value of each key and the layer that it comes from.";

fn configuration_page() -> String {
    let defaults = Table::try_from(Config::default()).unwrap();
    let mut page = String::from("# Configuration\n");
    paragraphs(&mut page, CONFIGURATION);
    for section in SECTIONS {
        write!(page, "\n## `[{}]`\n", section.name).unwrap();
        paragraphs(&mut page, section.doc);
        let values = defaults[section.name].as_table().unwrap();
        for field in section.fields {
            let variable = variable(field.key);
            write!(page, "\n### `{}`\n", field.key).unwrap();
            paragraphs(&mut page, field.doc);
            let default = shown(&values[field.name], field.is_size());
            let limit = (field.limit)().map(|words| format!("\n- Must be {words}."));
            let file = read_from_files()
                .any(|key| key == field.key)
                .then(|| format!("\n- By a file: `{}_file`, or `{variable}_FILE`.", field.key));
            let more = limit.unwrap_or_default() + &file.unwrap_or_default();
            let facts = format!("- Default: {default}.\n- Variable: `{variable}`.{more}");
            page.push('\n');
            facts.lines().for_each(|line| wrap(&mut page, line, "  "));
        }
    }
    page
}

/// The paragraphs and lists of a text, whose lines may be indented as in the source.
fn paragraphs(page: &mut String, text: &str) {
    for paragraph in text.trim().split("\n\n") {
        page.push('\n');
        if paragraph.trim_start().starts_with("1. ") {
            paragraph.lines().for_each(|line| wrap(page, line.trim(), "   "));
        } else {
            wrap(page, paragraph, "");
        }
    }
}

/// Words in lines of the width of a page, all but the first indented.
fn wrap(page: &mut String, text: &str, indent: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() > WIDTH {
            page.push_str(&line);
            page.push('\n');
            line = format!("{indent}{word}");
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    page.push_str(&line);
    page.push('\n');
}

fn shown(value: &Value, is_size: bool) -> String {
    match value {
        Value::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Array(items) => {
            format!("`[{}]`", items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::Integer(bytes) if is_size && *bytes > 0 && bytes % MIB == 0 => {
            format!("`{bytes}` ({} MiB)", bytes / MIB)
        }
        Value::Integer(bytes) if is_size && *bytes > 0 && bytes % KIB == 0 => {
            format!("`{bytes}` ({} KiB)", bytes / KIB)
        }
        other => format!("`{other}`"),
    }
}

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;

const ERRORS: &str = "\
    This page lists every reason that an error can have. It is generated from the code.

    gRPC callers get a `google.rpc.Status` with `ErrorInfo` (domain `outrider.dev`), `BadRequest` \
    with a violation per field, and `RetryInfo` where a retry may help. REST callers get the same \
    as JSON under `error`. A reason keeps its name and its codes; the text of an error may change.";

/// The name of a code as gRPC writes it: `INVALID_ARGUMENT`.
fn grpc_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn errors_page() -> String {
    let mut page = String::from("# Errors\n");
    paragraphs(&mut page, ERRORS);
    for reason in Reason::ALL {
        let (code, http) = codes(*reason);
        write!(page, "\n## `{reason}`\n").unwrap();
        paragraphs(&mut page, reason.meaning());
        write!(page, "\n- gRPC: `{}`.\n- HTTP: {http}.\n", grpc_name(code)).unwrap();
    }
    page
}

const METRICS_INTRODUCTION: &str = "\
    This page lists every metric. It is generated from the code.

    Each process shows the metrics of the parts that run in it at `/metrics` of its operations \
    listener (`operations.listen`), in the text format of Prometheus. Labels never name a project, \
    an endpoint, an event or a path. See \
    [operations.md](operations.md) for alerts.";

fn metrics_page() -> String {
    let mut page = String::from("# Metrics\n");
    paragraphs(&mut page, METRICS_INTRODUCTION);
    for section in METRICS {
        write!(page, "\n## {}\n", section.name).unwrap();
        for entry in section.entries {
            write!(page, "\n### `{}`\n", entry.declaration.name).unwrap();
            paragraphs(&mut page, entry.declaration.help);
            write!(page, "\n- Type: {}.\n", entry.kind).unwrap();
            let labels: Vec<String> =
                entry.declaration.labels.iter().map(|label| format!("`{label}`")).collect();
            if !labels.is_empty() {
                wrap(&mut page, &format!("- Labels: {}.", labels.join(", ")), "  ");
            }
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
        secrets: Secrets { master_key: "k:c2VjcmV0".into(), ..Secrets::default() },
        ..Config::default()
    };
    assert!(!format!("{config:?}").contains("c2VjcmV0"));
}
