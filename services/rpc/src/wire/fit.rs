//! Shortens errors so that they fit the head of an answer. Over gRPC, errors travel in header
//! fields, and clients read heads of 8 KiB. The message is in the head twice, with escapes and in
//! base64; the violations are in it in base64.

use outrider_model::{Error, FieldViolation};

/// Maximum size of the texts of all violations, in bytes.
const VIOLATIONS: usize = 2_400;
/// Maximum size of the message, which repeats them, in bytes.
const MESSAGE: usize = 900;

/// Returns the error with as many violations as fit, and the number of the others in its message.
pub fn fit(mut error: Error) -> Error {
    let all = error.violations.len();
    let kept = how_many_fit(&error.violations);
    if kept < all {
        // If the first violation alone is too long, its texts are cut: an error without violations
        // would say nothing.
        error.violations.truncate(kept.max(1));
        if kept == 0 {
            for FieldViolation { field, description } in &mut error.violations {
                (*field, *description) =
                    (cut(field, VIOLATIONS / 2), cut(description, VIOLATIONS / 2));
            }
        }
        error.message = Error::fields(error.violations.clone()).message;
    }
    if error.message.len() > MESSAGE {
        error.message = cut(&error.message, MESSAGE).into();
    }
    let left = all - error.violations.len();
    if left > 0 {
        error.message = format!("{}; and {left} more", error.message).into();
    }
    error
}

fn how_many_fit(violations: &[FieldViolation]) -> usize {
    let mut room = VIOLATIONS;
    let fits = |violation: &&FieldViolation| {
        let bytes = violation.field.len() + violation.description.len();
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    };
    violations.iter().take_while(fits).count()
}

/// Cuts a text after whole characters.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use outrider_model::Reason;

    use super::*;

    fn violations(count: usize, bytes: usize) -> Vec<FieldViolation> {
        (0..count)
            .map(|number| FieldViolation {
                field: format!("f[{number}]"),
                description: "é".repeat(bytes / 2),
            })
            .collect()
    }

    #[test]
    fn an_error_that_fits_is_unchanged() {
        for error in
            [Error::fields(violations(8, 100)), Error::internal("x"), Error::field("a", "b")]
        {
            assert_eq!(fit(error.clone()), error);
        }
    }

    #[test]
    fn an_error_that_does_not_fit_says_how_much_is_left_out() {
        let error = fit(Error {
            reason: Reason::PayloadSchemaViolation,
            ..Error::fields(violations(200, 100))
        });
        assert_eq!(error.reason, Reason::PayloadSchemaViolation);
        assert!((20..40).contains(&error.violations.len()), "{}", error.violations.len());
        assert!(
            error.message.ends_with(&format!("; and {} more", 200 - error.violations.len())),
            "{}",
            error.message
        );
        assert_eq!(error.violations[0], violations(1, 100)[0]);
        let lone = fit(Error::fields(violations(1, 100_000)));
        assert!(
            lone.violations.len() == 1 && lone.violations[0].description.ends_with('…'),
            "{lone}"
        );
        assert!(lone.message.len() < MESSAGE + 10);
        assert!(fit(Error::internal("x".repeat(1 << 20))).message.len() < MESSAGE + 10);
    }
}
