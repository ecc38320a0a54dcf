//! Errors that fit the head of an answer: over gRPC, what is wrong travels in header fields, and clients and roles refuse heads over some
//! KiB. The texts are in it twice, once more in base64 and once with escapes.

use outrider_model::{Error, FieldViolation};

/// Bytes of the texts of all violations; and of one message. Heads are at most about five times as long.
const MOST: usize = 3 * 1024;

/// The same error with as many violations as fit, and the number of the others.
pub fn fit(mut error: Error) -> Error {
    let (mut room, all) = (MOST, error.violations.len());
    let fits = |violation: &&FieldViolation| {
        let bytes = violation.field.len() + violation.description.len();
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    };
    let kept = error.violations.iter().take_while(fits).count();
    if kept < all {
        let mut violations = std::mem::take(&mut error.violations);
        // One that is too long alone is cut: an error without any would say nothing.
        violations.truncate(kept.max(1));
        if kept == 0 {
            for violation in &mut violations {
                (violation.field, violation.description) =
                    (cut(&violation.field, MOST / 2), cut(&violation.description, MOST / 2));
            }
        }
        let left = all - violations.len();
        let Error { message, violations, .. } = Error::fields(violations);
        error.message = if left > 0 { format!("{message}; and {left} more").into() } else { message };
        error.violations = violations;
    }
    if error.message.len() > 2 * MOST {
        error.message = cut(&error.message, 2 * MOST).into();
    }
    error
}

/// The begin of a text, whole characters of it.
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
        (0..count).map(|number| FieldViolation { field: format!("f[{number}]"), description: "é".repeat(bytes / 2) }).collect()
    }

    #[test]
    fn what_fits_is_as_it_was() {
        for error in [Error::fields(violations(20, 100)), Error::internal("x"), Error::field("a", "b")] {
            assert_eq!(fit(error.clone()), error);
        }
    }

    #[test]
    fn what_does_not_fit_tells_how_much_is_left_out() {
        let error = fit(Error { reason: Reason::PayloadSchemaViolation, ..Error::fields(violations(200, 100)) });
        assert_eq!(error.reason, Reason::PayloadSchemaViolation);
        assert!((20..40).contains(&error.violations.len()), "{}", error.violations.len());
        assert!(error.message.ends_with(&format!("; and {} more", 200 - error.violations.len())), "{}", error.message);
        assert_eq!(error.violations[0], violations(1, 100)[0]);
        let lone = fit(Error::fields(violations(1, 100_000)));
        assert!(lone.violations.len() == 1 && lone.violations[0].description.ends_with('…'), "{lone}");
        assert!(lone.message.len() < 2 * MOST + 10);
        assert!(fit(Error::internal("x".repeat(1 << 20))).message.len() < 2 * MOST + 10);
    }

    #[test]
    fn a_head_has_room_for_the_longest() {
        for error in [Error::fields(violations(200, 100)), Error::fields(violations(1, 100_000))] {
            let head = crate::to_status(error).into_http::<()>();
            let bytes: usize = head.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            // Three bytes of the header for each byte that is not ASCII: what is written here is the worst.
            assert!(bytes <= 40 * 1024, "{bytes}");
        }
    }
}
