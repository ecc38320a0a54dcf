//! The column `settings`: the fields of a spec that have no column of their own, as a JSON object
//! with the version of its form.
//!
//! Two versions of Outrider use the column at the same time. So a new field does not change the
//! version of the form: a version of Outrider that does not know the field ignores it and stores it
//! again as it was. If ignoring it would be wrong, as with a filter, increase the version: a
//! version of Outrider that does not know the form then fails to read the row.

use outrider_model::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::json::{parse_json, to_json};
use crate::connection::error::malformed_row;

const COLUMN: &str = "settings";

/// The name of the field with the version of the form.
const VERSION: &str = "version";
/// The latest form that this version of Outrider knows.
const LATEST: u64 = 1;

/// A spec with the stored settings, and with defaults in its other fields.
pub(super) fn read<S: Default + DeserializeOwned>(
    table: &'static str,
    column: Option<&str>,
) -> Result<S> {
    let Some(text) = column else { return Ok(S::default()) };
    let mut fields: Map<String, Value> = parse_json(table, COLUMN, text)?;
    match fields.remove(VERSION).and_then(|version| version.as_u64()) {
        Some(LATEST) => {
            S::deserialize(Value::Object(fields)).map_err(|_| malformed_row(table, COLUMN))
        }
        Some(version) => {
            tracing::error!(table, version, "a later version of Outrider wrote a row");
            Err(Error::internal("a later version of Outrider wrote a stored row"))
        }
        None => Err(malformed_row(table, COLUMN)),
    }
}

/// The settings of a spec, for the column. None if they are the defaults.
pub(super) fn write<S: Default + Serialize>(spec: &S) -> Result<Option<String>> {
    let stored = |mut fields: Map<String, Value>| {
        fields.insert(VERSION.to_owned(), LATEST.into());
        to_json(&fields)
    };
    fields(spec)?.map(stored).transpose()
}

/// Adds the settings of a spec to a description of it, unless they are the defaults. So the
/// description of a spec stays the same when fields are added.
pub(super) fn describe<S: Default + Serialize>(spec: &S, mut description: Value) -> Value {
    // A spec that cannot be written is never described.
    if let Ok(Some(fields)) = fields(spec) {
        description[COLUMN] = fields.into();
    }
    description
}

fn fields<S: Default + Serialize>(spec: &S) -> Result<Option<Map<String, Value>>> {
    let (fields, defaults) = (object(spec)?, object(&S::default())?);
    Ok(Some(fields).filter(|fields| *fields != defaults))
}

fn object<S: Serialize>(spec: &S) -> Result<Map<String, Value>> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(Error::internal("a spec is not a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::{Reason, noun::Unknown};
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    struct Spec {
        #[serde(skip)]
        has_column: u32,
        labels: Vec<String>,
        #[serde(flatten)]
        group: Group,
        #[serde(flatten)]
        unknown: Unknown,
    }

    impl Default for Spec {
        fn default() -> Self {
            let (labels, unknown) = (vec!["standard".to_owned()], Unknown::new());
            Self { has_column: 7, labels, group: Group::default(), unknown }
        }
    }

    #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Group {
        #[serde(skip)]
        has_column: u32,
        per_second: Option<u32>,
    }

    fn stored(text: &str) -> Result<Spec> {
        read("endpoints", Some(text))
    }

    #[test]
    fn defaults_are_not_stored() {
        let spec = Spec { has_column: 1, ..Spec::default() };
        assert_eq!(write(&spec).unwrap(), None);
        assert_eq!(read::<Spec>("endpoints", None).unwrap(), Spec::default());
        assert_eq!(describe(&spec, json!({"a": 1})), json!({"a": 1}));
    }

    #[test]
    fn fields_without_columns_are_stored_in_one_object() {
        let mut spec = Spec { labels: Vec::new(), ..Spec::default() };
        spec.group.per_second = Some(5);
        let text = write(&spec).unwrap().unwrap();
        let fields = json!({"labels": [], "per_second": 5});
        assert_eq!(text, r#"{"labels":[],"per_second":5,"version":1}"#);
        assert_eq!(stored(&text).unwrap(), spec);
        assert_eq!(describe(&spec, json!({})), json!({"settings": fields}));
    }

    #[test]
    fn fields_of_later_versions_stay_and_absent_ones_are_defaults() {
        let text = r#"{"later":{"a":[1,null]},"version":1}"#;
        let mut spec = stored(text).unwrap();
        assert_eq!((&spec.labels, spec.has_column), (&Spec::default().labels, 7));
        spec.group.per_second = Some(1);
        let text = write(&spec).unwrap().unwrap();
        assert!(text.contains(r#""later":{"a":[1,null]}"#) && text.contains("\"per_second\":1"));
    }

    #[test]
    fn a_form_of_a_later_version_is_refused() {
        for text in [r#"{"version":2}"#, "{}", "[]", "", r#"{"version":1,"labels":1}"#] {
            assert_eq!(stored(text).unwrap_err().reason, Reason::Internal, "{text}");
        }
    }
}
