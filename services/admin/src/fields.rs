//! Fields that occur in the requests of several nouns.

use std::{fmt::Display, str::FromStr};

use outrider_model::{Error, ProjectId, Result, error::Violations, limits};
use outrider_rpc::validate;

/// Reads a required id.
pub fn id<T>(violations: &mut Violations, field: &str, text: &str) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    if text.is_empty() {
        violations.add(field, "is required");
        return None;
    }
    violations.check(field, text.parse())
}

/// Reads an optional id. The outer `None` means a violation.
pub fn optional_id<T>(violations: &mut Violations, field: &str, text: &str) -> Option<Option<T>>
where
    T: FromStr,
    T::Err: Display,
{
    if text.is_empty() { Some(None) } else { id(violations, field, text).map(Some) }
}

/// Reads the project and the id of a resource in it, as in requests for one resource.
pub fn project_and<T>(field: &str, project: &str, text: &str) -> Result<(ProjectId, T)>
where
    T: FromStr,
    T::Err: Display,
{
    let mut violations = Violations::new();
    let project = id(&mut violations, "project_id", project);
    let id = id(&mut violations, field, text);
    checked(violations, project.zip(id))
}

/// Checks a field with a fixed value. If it is given, it must have that value, because any other
/// would have no effect.
pub fn fixed(violations: &mut Violations, field: &str, given: &str, known: &str) {
    violations.require(
        given.is_empty() || given == known,
        field,
        "is fixed, and has another value than this",
    );
}

/// Reads the request id, if it is given.
pub fn request_id<'a>(violations: &mut Violations, text: &'a str) -> Option<&'a str> {
    if text.is_empty() {
        return None;
    }
    violations.check("request_id", validate::key(text, limits::REQUEST_ID_BYTES));
    Some(text)
}

/// Reads a display name.
pub fn name(violations: &mut Violations, field: &str, text: &str) -> String {
    violations.check(field, validate::name(text));
    text.to_owned()
}

/// Returns the value, or the violations if there are any.
pub fn checked<T>(violations: Violations, value: Option<T>) -> Result<T> {
    violations.finish()?;
    value.ok_or_else(|| Error::internal("a field was refused without a violation"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_field_may_be_sent_back_but_not_changed() {
        let with = |given: &str| {
            let mut violations = Violations::new();
            fixed(&mut violations, "endpoint.endpoint_id", given, "ep_1");
            violations.finish()
        };
        assert!(with("").is_ok() && with("ep_1").is_ok());
        assert_eq!(with("ep_2").unwrap_err().violations[0].field, "endpoint.endpoint_id");
    }
}
