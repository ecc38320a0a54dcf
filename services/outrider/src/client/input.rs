//! Arguments that several commands share.

use std::{collections::HashMap, time::SystemTime};

use clap::Args;
use prost_types::{Duration, FieldMask, Timestamp};

use super::Failure;

/// The flag of headers.
pub const HEADER: &str = "--header";
/// The flag of metadata.
pub const METADATA: &str = "--metadata";

/// The page of a list.
#[derive(Debug, Args)]
pub struct Page {
    /// Maximum number of items, 1 to 500 [default: 50]
    #[arg(long, value_name = "N")]
    pub page_size: Option<i32>,
    /// The token from the last page; use the same filters.
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    pub page_token: String,
}

impl Page {
    /// Returns the size for a request, where 0 requests the default.
    pub fn size(&self) -> i32 {
        self.page_size.unwrap_or(0)
    }
}

/// A range of time.
#[derive(Debug, Args)]
pub struct Span {
    /// Only items of this time or later: RFC 3339, or an age such as 2h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Timestamp>,
    /// Only items before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Timestamp>,
}

/// Parses RFC 3339, or an age such as `2h`.
pub fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(age) = humantime::parse_duration(text) {
        return SystemTime::now()
            .checked_sub(age)
            .map(Timestamp::from)
            .ok_or_else(|| "is too long ago".to_owned());
    }
    instant(text)
}

/// RFC 3339.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "must be a time such as 2026-01-31T12:00:00Z".to_owned())
}

/// Parses a duration such as `15s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| "is too long".to_owned())
}

/// `NAME=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "must be NAME=VALUE".to_owned())?;
    if name.is_empty() {
        Err("must be NAME=VALUE".to_owned())
    } else {
        Ok((name.to_owned(), value.to_owned()))
    }
}

/// Converts the values of a flag to a map. Refuses duplicate names, because one would have no
/// effect. Names of headers are not case-sensitive.
pub fn map(flag: &str, pairs: Vec<(String, String)>) -> Result<HashMap<String, String>, Failure> {
    let mut map = HashMap::new();
    for (name, value) in pairs {
        let same = |known: &String| {
            if flag == HEADER { known.eq_ignore_ascii_case(&name) } else { *known == name }
        };
        if map.keys().any(same) {
            return Err(Failure::Usage(format!("{flag} {name}: is given twice")));
        }
        map.insert(name, value);
    }
    Ok(map)
}

/// The fields of an update: the given ones, and those to clear.
#[derive(Default)]
pub struct Mask(Vec<String>);

impl Mask {
    /// Begins with the fields to clear.
    pub fn clearing(fields: Vec<String>) -> Self {
        Self(fields)
    }

    /// Returns the new value of a field, and adds its name to the mask if there is one.
    pub fn take<T: Default>(&mut self, field: &str, value: Option<T>) -> T {
        if value.is_some() {
            self.0.push(field.to_owned());
        }
        value.unwrap_or_default()
    }

    /// Like `take`, for a list or map. An empty one counts as not given.
    pub fn take_all<T>(&mut self, field: &str, values: Vec<T>) -> Vec<T> {
        if !values.is_empty() {
            self.0.push(field.to_owned());
        }
        values
    }

    /// Returns the mask for a request. Fails if nothing would change, or if a field is both set and
    /// cleared.
    pub fn finish(self) -> Result<Option<FieldMask>, Failure> {
        if self.0.is_empty() {
            return Err(Failure::Usage(
                "nothing to change: name at least one field (see --help)".into(),
            ));
        }
        for (at, path) in self.0.iter().enumerate() {
            if self.0[..at].iter().any(|other| other == path) {
                return Err(Failure::Usage(format!(
                    "{path} is named twice: give it a value, or --clear it, once"
                )));
            }
        }
        Ok(Some(FieldMask { paths: self.0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_arguments() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(pair("a").is_err() && pair("=b").is_err());
        assert_eq!(duration("1500ms").unwrap(), Duration { seconds: 1, nanos: 500_000_000 });
        assert_eq!(time("1970-01-01T00:00:01Z").unwrap().seconds, 1);
        assert!(time("1h").unwrap().seconds > 1_700_000_000);
        assert!(time("yesterday").is_err() && instant("1h").is_err());
    }

    #[test]
    fn masks_name_what_is_given_or_cleared() {
        let mut mask = Mask::clearing(vec!["owner_id".into()]);
        assert_eq!(mask.take("name", Some("x".to_owned())), "x");
        assert_eq!(mask.take::<String>("description", None), "");
        assert!(mask.take_all::<String>("headers", Vec::new()).is_empty());
        assert_eq!(mask.finish().ok().flatten().unwrap().paths, ["owner_id", "name"]);
        assert_eq!(Mask::default().finish().err().unwrap().code(), 2);
        let mut both = Mask::clearing(vec!["description".into()]);
        both.take("description", Some("x".to_owned()));
        let both = both.finish().err().unwrap();
        assert!(
            both.code() == 2 && both.to_string().contains("description is named twice"),
            "{both}"
        );
    }

    #[test]
    fn of_two_values_of_one_name_none_is_dropped_in_silence() {
        let pairs = |names: [&str; 2]| names.map(|name| (name.to_owned(), "x".to_owned())).into();
        let twice = map(HEADER, pairs(["X-A", "x-a"])).err().unwrap();
        assert!(
            twice.code() == 2 && twice.to_string().contains("--header x-a: is given twice"),
            "{twice}"
        );
        assert_eq!(map(METADATA, pairs(["A", "a"])).ok().unwrap().len(), 2);
        assert!(map(METADATA, pairs(["a", "a"])).is_err());
    }
}
