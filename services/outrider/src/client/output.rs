//! Prints the output of commands: tables for people, JSON for scripts.

use std::{io::IsTerminal as _, ops::ControlFlow};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use prost::{Message, Name};
use serde_json::Value;
use tonic::Response;

use super::{Failure, json::Answer};
use crate::{
    printable::{one_line, printable},
    stderr::note,
    stdout,
};

/// A column: its title and the path of its field, such as `http.url`.
pub type Column = (&'static str, &'static str);

/// The form of the output.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    color: bool,
}

impl Output {
    /// Uses color only on a terminal, and not if NO_COLOR is set.
    pub fn new(json: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, color: std::io::stdout().is_terminal() && !refused }
    }

    /// Prints one object, a field per line.
    pub fn one<M: Message + Name>(self, message: &M) -> Result<(), Failure> {
        let mut answer = Answer::of(message)?;
        if self.json {
            return self.raw(&answer);
        }
        let json_text = answer.take_json_text();
        let mut table = self.table();
        for (field, value) in answer.value.as_object().into_iter().flatten() {
            // A response such as {"endpoint": {…}, "secret": …} is flattened.
            match value.as_object().filter(|inner| inner.keys().any(|key| key.ends_with("_id"))) {
                Some(inner) => {
                    inner.iter().for_each(|(field, value)| self.row(&mut table, field, value))
                }
                None => self.row(&mut table, field, value),
            }
        }
        let mut text = table.trim_fmt() + "\n";
        if let Some(payload) = answer.payload() {
            text += &format!("\n{}\n", printable(payload));
        }
        if let Some(json) = json_text {
            text += &format!(
                "\n{}\n",
                printable(&serde_json::to_string_pretty(&json).map_err(anyhow::Error::from)?)
            );
        }
        Ok(stdout::write(&text)?)
    }

    /// Prints a page of a list, with a line per item, and how to get the next page. The type of the
    /// response determines the items.
    pub fn page<M: Message + Name>(
        self,
        answer: Response<M>,
        columns: &[Column],
    ) -> Result<(), Failure> {
        let answer = Answer::of(answer.get_ref())?;
        if self.json {
            return self.raw(&answer);
        }
        let mut table = self.table();
        table.set_header(columns.iter().map(|(title, _)| title.to_uppercase()));
        for item in answer.items() {
            table.add_row(columns.iter().map(|(_, path)| self.cell(at(item, path))));
        }
        stdout::write(&(table.trim_fmt() + "\n"))?;
        if let Some(token) =
            answer.value["next_page_token"].as_str().filter(|token| !token.is_empty())
        {
            note!("more: --page-token {}", one_line(token));
        }
        Ok(())
    }

    /// Prints an item of a stream: a line, with its payload, if any, below. Breaks if standard
    /// output is closed. In JSON, prints what REST sends: the cursor, and the object under its
    /// name.
    pub fn live<M: Message + Name>(
        self,
        cursor: &str,
        key: &str,
        message: &M,
        columns: &[Column],
    ) -> Result<ControlFlow<()>, Failure> {
        let answer = Answer::of(message)?;
        let text = if self.json {
            let cursor = serde_json::to_string(cursor).map_err(anyhow::Error::from)?;
            let thing = serde_json::to_string(&answer).map_err(anyhow::Error::from)?;
            format!("{{\"cursor\":{cursor},\"{key}\":{}}}\n", on_one_line(&thing))
        } else {
            let mut table = self.table();
            table.add_row(columns.iter().map(|(_, path)| self.cell(at(&answer.value, path))));
            let payload = answer
                .payload()
                .map(|payload| format!("{}\n", printable(payload)))
                .unwrap_or_default();
            format!("{}\n{payload}", table.trim_fmt())
        };
        Ok(if stdout::write_while_read(&text)? {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    }

    /// Prints that the command is done, if the response is empty.
    pub fn done(self, message: &str) -> Result<(), Failure> {
        let text = if self.json { "{}" } else { message };
        Ok(stdout::write(&format!("{text}\n"))?)
    }

    fn raw(self, answer: &Answer) -> Result<(), Failure> {
        let text = serde_json::to_string(answer).map_err(anyhow::Error::from)?;
        Ok(stdout::write(&format!("{text}\n"))?)
    }

    fn row(self, table: &mut Table, field: &str, value: &Value) {
        let empty = matches!(value, Value::String(text) if text.is_empty())
            || matches!(value, Value::Array(items) if items.is_empty())
            || matches!(value, Value::Object(fields) if fields.is_empty());
        if !empty {
            table.add_row([Cell::new(field), self.cell(value)]);
        }
    }

    fn table(self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        // Lines are broken for a terminal only, because programs that read columns need whole ones.
        table.set_content_arrangement(if std::io::stdout().is_terminal() {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        if self.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }

    fn cell(self, value: &Value) -> Cell {
        let text = shown(value);
        match color(&text).filter(|_| self.color) {
            Some(color) => Cell::new(text).fg(color),
            None => Cell::new(text),
        }
    }
}

/// Line ends in JSON are white space, and a payload may contain them.
fn on_one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, name| &value[name])
}

/// Formats a value on one line. Enums are shown without the name of their type:
/// DELIVERY_STATUS_DELIVERED is `delivered`.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => enum_word(text).unwrap_or_else(|| one_line(text)),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{}={}", one_line(name), shown(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

const ENUMS: [&str; 9] = [
    "ENDPOINT_STATE_",
    "DELIVERY_STATUS_",
    "DELIVERY_REASON_",
    "ATTEMPT_OUTCOME_",
    "ROUTING_OUTCOME_",
    "ORIGIN_KIND_",
    "SCOPE_",
    "SCHEMA_VALIDATION_",
    "WARNING_REASON_",
];

fn enum_word(text: &str) -> Option<String> {
    let word = ENUMS.iter().find_map(|prefix| text.strip_prefix(prefix))?;
    Some(if word == "UNSPECIFIED" { String::new() } else { word.to_lowercase() })
}

fn color(word: &str) -> Option<Color> {
    match word {
        "delivered" | "succeeded" | "active" | "routed" => Some(Color::Green),
        "pending" | "paused" | "retrying" | "no_subscription" => Some(Color::Yellow),
        "failed" | "rejected" | "timed_out" | "name_not_resolved" | "connection_failed"
        | "tls_failed" | "address_refused" | "bad_response" | "exhausted" => Some(Color::Red),
        "cancelled" => Some(Color::DarkGrey),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_words_on_one_line() {
        assert_eq!(shown(&json!("DELIVERY_STATUS_DELIVERED")), "delivered");
        assert_eq!(shown(&json!("ENDPOINT_STATE_UNSPECIFIED")), "");
        assert_eq!(shown(&json!(["a.*", "b"])), "a.*, b");
        assert_eq!(shown(&json!({"url": "http://x/", "n": 1})), "url=http://x/, n=1");
        assert_eq!(shown(&json!("a\u{1b}[31m\nb")), "a\\u001b[31m\\nb");
        assert_eq!(shown(at(&json!({"http": {"url": "u"}}), "http.url")), "u");
        assert_eq!(shown(at(&json!({}), "http.url")), "");
    }

    #[test]
    fn every_enum_of_the_public_protos_has_its_word() {
        let public =
            |name: &str| !name.starts_with("outrider.internal.") && name.starts_with("outrider.");
        for list in outrider_proto::DESCRIPTORS.all_enums().filter(|list| public(list.full_name()))
        {
            for value in list.values() {
                assert!(
                    enum_word(value.name()).is_some(),
                    "{} is not known to ENUMS",
                    value.name()
                );
            }
        }
    }

    #[test]
    fn only_asked_for_colors() {
        let plain = Output { json: false, color: false };
        let mut table = plain.table();
        table.add_row([plain.cell(&json!("DELIVERY_STATUS_FAILED"))]);
        assert_eq!(table.trim_fmt().trim(), "failed");
        let colored = Output { json: false, color: true };
        let mut table = colored.table();
        table.add_row([colored.cell(&json!("DELIVERY_STATUS_FAILED"))]);
        assert!(table.trim_fmt().contains('\u{1b}'));
    }
}
