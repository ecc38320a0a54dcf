//! Signatures by Standard Webhooks 1.0.0: HMAC-SHA256 over `id.timestamp.body`, written as `v1,`
//! and base64.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

use crate::{SigningSecret, Timestamp};

/// The header with the event's id.
pub const ID_HEADER: &str = "webhook-id";
/// The header with the time of the attempt in seconds.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header with the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// Our own header with the delivery's id.
pub const DELIVERY_ID_HEADER: &str = "outrider-delivery-id";
/// Maximum difference of a timestamp from the present, in seconds, as in every library of Standard
/// Webhooks.
pub const TOLERANCE_SECONDS: i64 = 300;

/// Returns the value of `webhook-signature`: one signature per secret, separated by single spaces.
#[must_use]
pub fn sign<'a>(
    secrets: impl IntoIterator<Item = &'a SigningSecret>,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> String {
    let mut header = String::new();
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str("v1,");
        STANDARD.encode_string(tag(secret, id, at.seconds(), body), &mut header);
    }
    header
}

/// The reason why a webhook is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("webhook-timestamp is not a number of seconds")]
    MalformedTimestamp,
    #[error("webhook-timestamp is more than 5 minutes away")]
    Stale,
    #[error("no signature in webhook-signature matches")]
    WrongSignature,
}

/// Verifies a received webhook, as the official libraries do.
pub fn verify(
    secret: &SigningSecret,
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Untrusted> {
    let digits = !timestamp.is_empty()
        && timestamp.len() <= 12
        && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 =
        timestamp.parse().ok().filter(|_| digits).ok_or(Untrusted::MalformedTimestamp)?;
    if (now.seconds() - seconds).abs() > TOLERANCE_SECONDS {
        return Err(Untrusted::Stale);
    }
    let matches = |signature: &str| {
        let bytes = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
        bytes.is_some_and(|bytes| {
            hmac::verify(&key(secret), &message(id, seconds, body), &bytes).is_ok()
        })
    };
    if signatures.split(' ').any(matches) { Ok(()) } else { Err(Untrusted::WrongSignature) }
}

fn key(secret: &SigningSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose())
}

fn tag(secret: &SigningSecret, id: &str, seconds: i64, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&key(secret));
    context.update(id.as_bytes());
    context.update(format!(".{seconds}.").as_bytes());
    context.update(body);
    context.sign()
}

fn message(id: &str, seconds: i64, body: &[u8]) -> Vec<u8> {
    [format!("{id}.{seconds}.").as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTORS: [(&str, &str, i64, &str, &str); 2] = [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ];

    #[test]
    fn vectors_of_the_specification() {
        for (secret, id, seconds, body, signature) in VECTORS {
            let secret = SigningSecret::parse(secret).unwrap();
            let at = Timestamp::from_parts(seconds, 0);
            assert_eq!(sign([&secret], id, at, body.as_bytes()), signature);
            assert_eq!(
                verify(&secret, id, &seconds.to_string(), signature, body.as_bytes(), at),
                Ok(())
            );
        }
    }

    #[test]
    fn refuses_what_was_changed_or_is_old() {
        let (secret, id, seconds, body, signature) = VECTORS[0];
        let secret = SigningSecret::parse(secret).unwrap();
        let now = Timestamp::from_parts(seconds, 0);
        let check = |id: &str, timestamp: &str, signature: &str, body: &str, now| {
            verify(&secret, id, timestamp, signature, body.as_bytes(), now)
        };
        let text = seconds.to_string();
        assert_eq!(check("other", &text, signature, body, now), Err(Untrusted::WrongSignature));
        assert_eq!(check(id, &text, signature, "{}", now), Err(Untrusted::WrongSignature));
        assert_eq!(check(id, &text, "", body, now), Err(Untrusted::WrongSignature));
        assert_eq!(check(id, &text, &format!("v1,AAAA {signature}"), body, now), Ok(()));
        assert_eq!(
            check(id, &text, signature, body, Timestamp::from_parts(seconds + 301, 0)),
            Err(Untrusted::Stale)
        );
        assert_eq!(
            check(id, &text, signature, body, Timestamp::from_parts(seconds - 301, 0)),
            Err(Untrusted::Stale)
        );
        for malformed in ["", "+1614265330", "1614265330abc", "16142653301614265330"] {
            assert_eq!(
                check(id, malformed, signature, body, now),
                Err(Untrusted::MalformedTimestamp),
                "{malformed}"
            );
        }
    }
}
