//! Update masks (AIP-134), which select the fields that an update changes.

use outrider_model::{
    error::Violations,
    text::{joined, quoted},
};
use prost_types::FieldMask;

const ALL: &str = "*";

/// A field that updates may change.
pub struct Mutable {
    /// Name of the field, or of its oneof.
    pub name: &'static str,
    /// Other paths of the field: the members of a oneof.
    pub aliases: &'static [&'static str],
    /// Whether the message has a value, which matters if there is no mask.
    pub set: bool,
}

impl Mutable {
    fn matches(&self, path: &str) -> bool {
        self.name == path || self.aliases.contains(&path)
    }
}

/// The fields to change.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes(Vec<&'static str>);

impl Changes {
    /// Resolves a mask: the fields that it names, all fields for `*`, or the fields that are set if
    /// the mask is absent or empty. A path that is fixed or unknown is a violation of
    /// `update_mask`.
    pub fn resolve(
        violations: &mut Violations,
        mask: Option<&FieldMask>,
        mutable: &[Mutable],
        fixed: &[&str],
    ) -> Self {
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            return Self(
                mutable.iter().filter(|field| field.set).map(|field| field.name).collect(),
            );
        }
        if let [ALL] = paths.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            return Self(mutable.iter().map(|field| field.name).collect());
        }
        // One violation for all wrong paths, because a mask may name any number.
        if let Some(wrong) =
            paths.iter().find(|path| !mutable.iter().any(|field| field.matches(path)))
        {
            violations.add("update_mask", describe(wrong, mutable, fixed));
        }
        let named = |field: &&Mutable| paths.iter().any(|path| field.matches(path));
        Self(mutable.iter().filter(named).map(|field| field.name).collect())
    }

    /// Returns the value of a field from `value`, or `None` if the field does not change.
    pub fn take<T>(&self, name: &str, value: impl FnOnce() -> T) -> Option<T> {
        self.0.contains(&name).then(value)
    }
}

fn describe(path: &str, mutable: &[Mutable], fixed: &[&str]) -> String {
    if fixed.contains(&path) {
        return format!("{path} cannot be changed");
    }
    let names: Vec<&str> = mutable.iter().map(|field| field.name).collect();
    if path == ALL {
        return "* must stand alone".to_owned();
    }
    format!("{} is not a field that can be changed; those are {}", quoted(path), joined(&names))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &[&str] = &["thing_id", "create_time"];

    fn resolve(paths: Option<&[&str]>) -> Result<Vec<&'static str>, String> {
        let mutable = [
            Mutable { name: "name", aliases: &[], set: true },
            Mutable { name: "note", aliases: &[], set: false },
            Mutable { name: "target", aliases: &["http", "http.url"], set: true },
        ];
        let mask = paths.map(|paths| FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        });
        let mut violations = Violations::new();
        let changes = Changes::resolve(&mut violations, mask.as_ref(), &mutable, FIXED);
        match violations.finish() {
            Ok(()) => Ok(changes.0),
            Err(error) => {
                assert_eq!(error.violations[0].field, "update_mask");
                Err(error.violations[0].description.clone())
            }
        }
    }

    #[test]
    fn without_a_mask_set_fields_change() {
        assert_eq!(resolve(None), Ok(vec!["name", "target"]));
        assert_eq!(resolve(Some(&[])), Ok(vec!["name", "target"]));
    }

    #[test]
    fn a_mask_decides_alone() {
        assert_eq!(resolve(Some(&["note"])), Ok(vec!["note"]));
        assert_eq!(resolve(Some(&["*"])), Ok(vec!["name", "note", "target"]));
        for path in ["target", "http", "http.url"] {
            assert_eq!(resolve(Some(&[path, path])), Ok(vec!["target"]));
        }
    }

    #[test]
    fn wrong_paths_are_refused_with_the_reason() {
        assert_eq!(resolve(Some(&["name", "thing_id"])).unwrap_err(), "thing_id cannot be changed");
        assert_eq!(resolve(Some(&["name", "*"])).unwrap_err(), "* must stand alone");
        for path in ["", "Name", "name.x", "other", "http.other"] {
            assert!(
                resolve(Some(&[path])).unwrap_err().ends_with("those are name, note, target"),
                "{path}"
            );
        }
    }

    #[test]
    fn values_are_read_only_for_fields_that_change() {
        let changes = Changes(vec!["name"]);
        assert_eq!(changes.take("name", || 1), Some(1));
        assert_eq!(changes.take("note", || -> i32 { panic!("must not be read") }), None);
    }
}
