//! How long a client is willing to wait: `Request-Timeout` in REST, `grpc-timeout` in gRPC.

use std::time::Duration;

use http::HeaderMap;
use outrider_model::{Error, FieldViolation, Reason, text::span};
use tokio::time::Instant;

const REST: &str = "request-timeout";
/// The gRPC header.
pub(crate) const GRPC: &str = "grpc-timeout";

/// The longest deadline, because a clock cannot represent any time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a request must end. The time counts from the head of the request, and includes the check of
/// its key, its body and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    begun: Instant,
    /// The client's timeout, or why it is invalid.
    asked: Result<Option<Duration>, Box<Error>>,
    own: Duration,
}

impl Deadline {
    /// The deadline of a request that begins now, from the client's timeout and our own limit.
    pub(crate) fn new(asked: Result<Option<Duration>, Error>, own: Duration) -> Self {
        Self { begun: Instant::now(), asked: asked.map_err(Box::new), own: own.min(LONGEST) }
    }

    /// Returns the client's timeout. Fails if it is malformed, which is reported to known callers
    /// only.
    pub(crate) fn asked(&self) -> Result<Option<Duration>, Error> {
        self.asked.clone().map_err(|error| *error)
    }

    /// Returns when the client's timeout is over.
    pub(crate) fn asked_end(&self) -> Option<Instant> {
        Some(self.begun + self.asked.as_ref().ok().copied().flatten()?)
    }

    /// Returns when a request that is not a stream must be answered.
    pub(crate) fn end(&self) -> Instant {
        let own = self.begun + self.own;
        self.asked_end().map_or(own, |asked| asked.min(own))
    }

    /// The same, but at most `limit` after the beginning of the request.
    pub(crate) fn end_within(&self, limit: Duration) -> Instant {
        self.end().min(self.begun + limit.min(LONGEST))
    }

    /// Returns when the body must have arrived, if our own limit is the one that it would miss.
    pub(crate) fn of_body(&self) -> Option<Instant> {
        (!self.is_of_client()).then(|| self.begun + self.own.saturating_sub(BODY_AHEAD))
    }

    /// The error for a body that did not arrive within our own limit.
    pub(crate) fn body_too_slow(&self) -> Error {
        Error::new(Reason::TooSlow, format!("the body did not arrive within {}", span(self.own)))
    }

    /// Returns whether the client's timeout is shorter than our own limit.
    pub(crate) fn is_of_client(&self) -> bool {
        matches!(self.asked, Ok(Some(asked)) if asked < self.own)
    }
}

/// A body must have arrived this long before our own limit is over, so that a slow client gets an
/// error about the body.
const BODY_AHEAD: Duration = Duration::from_millis(10);

/// The error for a deadline that passed.
pub(crate) fn passed() -> Error {
    Error::new(
        Reason::DeadlineExceeded,
        "the request took too long; whether it took effect is unknown",
    )
}

/// The shortest timeout that a REST client can ask for, in seconds. No answer is faster.
pub(crate) const LEAST_SECONDS: f64 = 0.001;

/// Returns the timeout of a REST client, in seconds, written like a JSON number.
pub(crate) fn of_rest(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    given(headers, REST, "must be one number of seconds, 0.001 or more, such as 2.5", |text| {
        let seconds =
            serde_json::from_str::<f64>(text).ok().filter(|seconds| *seconds >= LEAST_SECONDS)?;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST))
    })
}

/// Returns the timeout of a gRPC client: up to eight digits and a unit.
pub(crate) fn of_grpc(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    given(headers, GRPC, "must be one to eight digits and one of H, M, S, m, u, n", |text| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = digits.parse::<u64>().ok()?;
        let time = match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        };
        Some(time.min(LONGEST))
    })
}

fn given(
    headers: &HeaderMap,
    name: &str,
    expected: &str,
    parse: impl Fn(&str) -> Option<Duration>,
) -> Result<Option<Duration>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let time =
        value.to_str().ok().filter(|_| values.next().is_none()).and_then(|text| parse(text.trim()));
    let wrong = || {
        let violation = FieldViolation { field: name.into(), description: expected.to_owned() };
        Error { reason: Reason::MalformedRequest, ..Error::fields(vec![violation]) }
    };
    time.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_counts_from_the_head_of_the_request() {
        let second = Duration::from_secs(1);
        let none = Deadline::new(Ok(None), 30 * second);
        let (short, long) = (
            Deadline::new(Ok(Some(second)), 30 * second),
            Deadline::new(Ok(Some(60 * second)), 30 * second),
        );
        let begun = Instant::now();
        tokio::time::advance(5 * second).await;
        assert_eq!(
            (none.end(), none.asked_end(), none.is_of_client()),
            (begun + 30 * second, None, false)
        );
        assert_eq!(
            (short.end(), short.asked_end(), short.is_of_client()),
            (begun + second, Some(begun + second), true)
        );
        assert_eq!(
            (long.end(), long.asked_end(), long.is_of_client()),
            (begun + 30 * second, Some(begun + 60 * second), false)
        );
        assert!(short.of_body().is_none() && none.of_body() < Some(none.end()));
        let malformed = Deadline::new(of_rest(&headers(REST, "soon")), 30 * second);
        assert_eq!(malformed.end(), Instant::now() + 30 * second);
        assert_eq!(malformed.asked().unwrap_err().reason, Reason::MalformedRequest);
    }

    #[test]
    fn seconds_may_be_fractions() {
        let of = |text| of_rest(&headers(REST, text));
        assert_eq!(of("2.5").unwrap(), Some(Duration::from_millis(2500)));
        assert_eq!(of("99999999999999999999999999").unwrap(), Some(LONGEST));
        assert_eq!(of("1e-3").unwrap(), Some(Duration::from_millis(1)));
        for bad in ["", "0", "-1", "1s", "inf", "NaN", "5e-324", "+1", "1,5", ".", "\"1\""] {
            let error = of(bad).unwrap_err();
            assert_eq!(
                (error.reason, error.violations[0].field.as_str()),
                (Reason::MalformedRequest, REST),
                "{bad}"
            );
        }
        assert_eq!(of_rest(&HeaderMap::new()).unwrap(), None);
        let mut twice = headers(REST, "1");
        twice.append(REST, HeaderValue::from_static("2"));
        assert!(of_rest(&twice).is_err());
    }

    #[test]
    fn grpc_has_units() {
        let of = |text| of_grpc(&headers(GRPC, text));
        for (text, time) in [
            ("1H", 3_600_000),
            ("2M", 120_000),
            ("3S", 3_000),
            ("4m", 4),
            ("5000u", 5),
            ("6000000n", 6),
            ("0S", 0),
        ] {
            assert_eq!(of(text).unwrap(), Some(Duration::from_millis(time)), "{text}");
        }
        assert_eq!(of("99999999H").unwrap(), Some(LONGEST));
        for bad in ["", "S", "1", "123456789S", "-1S", "1s", "1.5S", "1ü"] {
            assert!(
                of_grpc(&HeaderMap::from_iter([(
                    http::HeaderName::from_static(GRPC),
                    HeaderValue::from_str(bad).unwrap()
                )]))
                .is_err(),
                "{bad}"
            );
        }
    }
}
