//! Fields that the requests of several nouns have.

use std::{fmt::Display, str::FromStr};

use outrider_model::{Error, ProjectId, Result, error::Violations, limits};
use outrider_rpc::validate;

/// An id that must be there.
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

/// An id that may be absent: an outer none is a violation.
pub fn optional_id<T>(violations: &mut Violations, field: &str, text: &str) -> Option<Option<T>>
where
    T: FromStr,
    T::Err: Display,
{
    if text.is_empty() { Some(None) } else { id(violations, field, text).map(Some) }
}

/// The project and the id of something in it: what requests for one thing hold.
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

/// A field that has its value already: given again, it must be that value, since any other would
/// have no effect.
pub fn as_it_is(violations: &mut Violations, field: &str, given: &str, known: &str) {
    violations.require(
        given.is_empty() || given == known,
        field,
        "is fixed, and is another than this",
    );
}

/// The request id, when one is given.
pub fn request_id<'a>(violations: &mut Violations, text: &'a str) -> Option<&'a str> {
    if text.is_empty() {
        return None;
    }
    violations.check("request_id", validate::key(text, limits::REQUEST_ID_BYTES));
    Some(text)
}

/// The name shown to people.
pub fn name(violations: &mut Violations, field: &str, text: &str) -> String {
    violations.check(field, validate::name(text));
    text.to_owned()
}

/// The value when nothing is wrong, else what is.
pub fn checked<T>(violations: Violations, value: Option<T>) -> Result<T> {
    violations.finish()?;
    value.ok_or_else(|| Error::internal("a field was refused without a violation"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_field_may_be_sent_back_and_not_changed() {
        let with = |given: &str| {
            let mut violations = Violations::new();
            as_it_is(&mut violations, "endpoint.endpoint_id", given, "ep_1");
            violations.finish()
        };
        assert!(with("").is_ok() && with("ep_1").is_ok());
        assert_eq!(with("ep_2").unwrap_err().violations[0].field, "endpoint.endpoint_id");
    }
}
