//! Describes keys on the command line.

use std::fmt::Write as _;

use outrider_settings::Field;
use toml::{Table, Value};

use super::{
    aggregate::{Config, SECTIONS},
    keys::variable,
};

/// The width of a line.
const WIDTH: usize = 100;

/// Describes a key, or each key of a section. Returns `None` for an unknown name.
pub fn describe(name: &str) -> Option<String> {
    let mut text = String::new();
    for section in SECTIONS {
        let is_asked = |field: &&Field| section.name == name || field.key == name;
        if section.name == name {
            let _ = writeln!(text, "{}", wrapped(section.doc, ""));
        }
        for field in section.fields.iter().filter(is_asked) {
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = writeln!(text, "{}\n{}", field.key, wrapped(field.doc, "  "));
            let _ = writeln!(text, "  type      {}", field.kind);
            let _ = writeln!(text, "  default   {}", default(section.name, field));
            if let Some(limit) = (field.limit)() {
                let _ = writeln!(text, "  must be   {limit}");
            }
            let _ = writeln!(text, "  variable  {}", variable(field.key));
        }
    }
    (!text.is_empty()).then_some(text)
}

fn default(section: &str, field: &Field) -> Value {
    let defaults = Table::try_from(Config::default()).unwrap_or_default();
    let value = defaults.get(section).and_then(|values| values.get(field.name)).cloned();
    value.unwrap_or_else(|| Value::String(String::new()))
}

/// Wraps a text at a width, and indents each line.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![indent.to_owned()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.len() == indent.len() {
                line.push_str(word);
            } else if line.chars().count() + 1 + word.chars().count() <= WIDTH {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(format!("{indent}{word}"));
            }
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_sections_are_described() {
        let lease = describe("queue.lease").unwrap();
        assert!(lease.starts_with("queue.lease\n  How long a worker holds a job"), "{lease}");
        assert!(
            lease.ends_with(
                "  type      length of time\n  default   \"45s\"\n  must be   at least 1s\n  \
                 variable  OUTRIDER_QUEUE_LEASE\n"
            ),
            "{lease}"
        );
        let log = describe("log").unwrap();
        assert!(log.starts_with("What is logged.\n\nlog.format\n"), "{log}");
        assert!(log.contains("\n\nlog.level\n") && !log.contains("telemetry"), "{log}");
        assert!(log.lines().all(|line| line.chars().count() <= WIDTH), "{log}");
        assert_eq!(describe("queue.lea"), None);
    }
}
