//! Secrets. They never appear in logs or errors, and are compared in constant time.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::ApiKeyId;

/// The key that signs webhooks to an endpoint, by Standard Webhooks: 24 to 64 bytes, written as
/// `whsec_` and base64.
#[derive(Clone)]
pub struct SigningSecret(Vec<u8>);

/// The error of a text that is not a signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be \"whsec_\" and the base64 of 24 to 64 bytes, or the base64 alone")]
pub struct MalformedSecret;

impl SigningSecret {
    /// Creates a secret from the bytes of the key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedSecret> {
        if (24..=64).contains(&bytes.len()) {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(MalformedSecret)
        }
    }

    /// Parses the text. Also accepts `v1,whsec_…`, a common mistake.
    pub fn parse(text: &str) -> Result<Self, MalformedSecret> {
        let text = text.strip_prefix("v1,").unwrap_or(text);
        let text = text.strip_prefix("whsec_").unwrap_or(text);
        let bytes = STANDARD.decode(text).map_err(|_| MalformedSecret)?;
        Self::from_bytes(&bytes)
    }

    /// Returns the bytes of the key.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The text for its owner.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// An API key as its owner sends it: `ork_`, the key's id, `_`, and 32 random bytes.
#[derive(Clone)]
pub struct Token {
    /// The id of the key.
    pub id: ApiKeyId,
    secret: [u8; 32],
}

const TOKEN_PREFIX: &str = "ork_";
const ID_CHARACTERS: usize = 26;

impl Token {
    /// Creates a token from an id and 32 random bytes.
    #[must_use]
    pub fn new(id: ApiKeyId, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(TOKEN_PREFIX)?;
        let (id, secret) = rest.split_at_checked(ID_CHARACTERS)?;
        let id = format!("{}_{id}", ApiKeyId::PREFIX).parse().ok()?;
        let secret = URL_SAFE_NO_PAD.decode(secret.strip_prefix('_')?).ok()?;
        Some(Self { id, secret: secret.try_into().ok()? })
    }

    /// The text for its owner.
    #[must_use]
    pub fn reveal(&self) -> String {
        let id = self.id.to_string();
        let id = &id[id.len() - ID_CHARACTERS..];
        format!("{TOKEN_PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// Returns the form that is stored. A token has 256 random bits, so a fast hash suffices.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.secret).as_ref());
        hash
    }

    /// Returns the token without its secret.
    #[must_use]
    pub fn hashed(&self) -> HashedToken {
        HashedToken { id: self.id, hash: self.hash() }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// An API key by its id and the hash of its secret: enough to check that a caller has the key, and
/// not enough to act as that caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashedToken {
    /// The id of the key.
    pub id: ApiKeyId,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
}

impl HashedToken {
    /// Whether the stored hash is this one; in constant time.
    #[must_use]
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.hash.as_slice().ct_eq(stored).into()
    }
}

impl fmt::Debug for HashedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashedToken({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn tokens_round_trip_and_match_only_their_own_hash() {
        let token = Token::new(ApiKeyId::new(Timestamp(1_700_000_000_000_000), 7), [0xff; 32]);
        let parsed = Token::parse(&token.reveal()).unwrap().hashed();
        assert_eq!(parsed, token.hashed());
        assert!(parsed.matches(&token.hash()));
        assert!(!parsed.matches(&Token::new(token.id, [0; 32]).hash()) && !parsed.matches(b""));
        assert!(!format!("{token:?}").contains("____"));
        assert_eq!(format!("{parsed:?}"), format!("HashedToken({})", token.id));
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        let good = Token::new(ApiKeyId::new(Timestamp(0), 7), [1; 32]).reveal();
        for text in [
            "",
            "ork_",
            "ork_é",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}A"),
            &good.replace("ork", "sk"),
        ] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn secrets_have_24_to_64_bytes_and_hide() {
        assert!(SigningSecret::parse("").is_err());
        assert!(
            SigningSecret::from_bytes(&[1; 23]).is_err()
                && SigningSecret::from_bytes(&[1; 65]).is_err()
        );
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            SigningSecret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().expose(),
            secret.expose()
        );
        assert_eq!(secret.reveal(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
    }
}
