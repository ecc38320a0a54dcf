//! Encryption of secrets at rest: AES-256-GCM with a master key.
//!
//! A ciphertext is: the version (1), the length of the key's id, the id, 12 bytes of nonce, the
//! encrypted bytes, and 16 bytes of tag. The additional data are the part before the nonce and the
//! name of the row, so that a ciphertext that was moved to another row cannot be decrypted.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_model::{EndpointId, Error, Result, SecretId, SigningSecret};
use outrider_telemetry::Seldom;
use rand::RngExt;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// Maximum length of a key's id, in bytes.
const KEY_ID_BYTES: usize = 32;
/// Stands for a key that nobody has any more.
const LOST: &str = "lost";

/// The keys that encrypt secrets: the current key, and former keys that still decrypt what they
/// encrypted.
#[derive(Clone)]
pub struct MasterKeys {
    current: String,
    keys: Arc<HashMap<String, LessSafeKey>>,
    lost: Arc<HashSet<String>>,
}

/// The reason why a text is not a list of master keys. It names only ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMasterKeys {
    /// There is no key.
    #[error("at least one key is required, as id:base64")]
    None,
    /// An entry has no id, or one with characters that are not allowed.
    #[error("key {0} needs an id of 1 to 32 letters, digits, '_' or '-', a colon, and the key")]
    Id(usize),
    /// The key is not 32 bytes in base64.
    #[error("key {0} must be the base64 of 32 bytes")]
    Key(String),
    /// An id is given twice.
    #[error("key {0} is given twice")]
    Twice(String),
    /// The first key is given as lost, so it cannot encrypt.
    #[error("key {0} comes first and encrypts: it cannot be lost")]
    Lost(String),
}

/// The reason why a ciphertext was not decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unopened {
    /// It is not a ciphertext, or one of a newer version.
    #[error("is damaged")]
    Damaged,
    /// Its key is not configured.
    #[error("needs master key {0}, which is not configured")]
    NoKey(String),
    /// It was changed, belongs to another row, or was encrypted with another key of that id.
    #[error("is damaged, or was encrypted by another master key with the id {0}")]
    Refused(String),
}

impl MasterKeys {
    /// Parses `id:base64` entries, separated by commas. The first is the current key; the others
    /// only decrypt. `id:lost` is a former key that is lost: what it encrypted cannot be read,
    /// which is no reason not to start.
    pub fn parse(text: &str) -> Result<Self, InvalidMasterKeys> {
        let (mut keys, mut lost) = (HashMap::new(), HashSet::new());
        let mut current = None;
        for (index, entry) in
            text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate()
        {
            let (id, key) = entry
                .split_once(':')
                .filter(|(id, _)| is_id(id))
                .ok_or(InvalidMasterKeys::Id(index + 1))?;
            if keys.contains_key(id) || lost.contains(id) {
                return Err(InvalidMasterKeys::Twice(id.to_owned()));
            }
            if key == LOST {
                current.as_ref().ok_or_else(|| InvalidMasterKeys::Lost(id.to_owned()))?;
                lost.insert(id.to_owned());
                continue;
            }
            let bytes = STANDARD.decode(key).ok().filter(|bytes| bytes.len() == KEY_BYTES);
            let key = bytes.and_then(|bytes| UnboundKey::new(&AES_256_GCM, &bytes).ok());
            let key = key.ok_or_else(|| InvalidMasterKeys::Key(id.to_owned()))?;
            keys.insert(id.to_owned(), LessSafeKey::new(key));
            current.get_or_insert_with(|| id.to_owned());
        }
        Ok(Self {
            current: current.ok_or(InvalidMasterKeys::None)?,
            keys: Arc::new(keys),
            lost: Arc::new(lost),
        })
    }

    /// No key, for commands that need none. Encrypts and decrypts nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { current: String::new(), keys: Arc::default(), lost: Arc::default() }
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether this key is known to be lost.
    pub(crate) fn is_lost(&self, id: &str) -> bool {
        self.lost.contains(id)
    }

    /// Whether this was encrypted with a key that is known to be lost.
    pub(crate) fn was_of_lost_key(&self, sealed: &[u8]) -> bool {
        key_id(mark(sealed)).is_some_and(|id| self.is_lost(id))
    }

    /// Whether there is this key.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.keys.contains_key(id)
    }

    /// The mark that all ciphertexts of the current key begin with, and no others.
    pub(crate) fn current_mark(&self) -> Vec<u8> {
        let mut mark = vec![VERSION, u8::try_from(self.current.len()).unwrap_or(u8::MAX)];
        mark.extend_from_slice(self.current.as_bytes());
        mark
    }

    /// Generates a random key with this id, as a text for [`MasterKeys::parse`].
    #[must_use]
    pub fn generate_text(id: &str) -> String {
        format!("{id}:{}", STANDARD.encode(rand::rng().random::<[u8; KEY_BYTES]>()))
    }

    /// The id of the current key.
    #[must_use]
    pub fn current_id(&self) -> &str {
        &self.current
    }

    fn encrypt(&self, row: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let key = self
            .keys
            .get(&self.current)
            .ok_or_else(|| Error::internal("there is no master key"))?;
        let mut sealed = self.current_mark();
        let aad = Aad::from([sealed.as_slice(), row].concat());
        let nonce: [u8; NONCE_LEN] = rand::rng().random();
        sealed.extend_from_slice(&nonce);
        let mut body = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
            .map_err(|_| Error::internal("a secret was not encrypted"))?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    fn decrypt(&self, row: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let Parts { mark, key_id, nonce, body } = split(sealed).ok_or(Unopened::Damaged)?;
        let key = self.keys.get(key_id).ok_or_else(|| Unopened::NoKey(key_id.to_owned()))?;
        let aad = Aad::from([mark, row].concat());
        let mut body = body.to_vec();
        let plain = key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut body);
        plain.map(|plain| plain.to_vec()).map_err(|_| Unopened::Refused(key_id.to_owned()))
    }

    /// Encrypts a secret of an endpoint for its row.
    pub(crate) fn seal_secret(
        &self,
        endpoint: EndpointId,
        id: SecretId,
        secret: &SigningSecret,
    ) -> Result<Vec<u8>> {
        self.encrypt(&secret_row(endpoint, id), secret.expose())
    }

    /// Decrypts a secret of an endpoint. Fails if it is damaged, belongs to another row, or needs a
    /// key that is not configured.
    pub(crate) fn open_secret(
        &self,
        endpoint: EndpointId,
        id: SecretId,
        sealed: &[u8],
    ) -> Result<SigningSecret> {
        let plain = self
            .decrypt(&secret_row(endpoint, id), sealed)
            .map_err(|why| unreadable(endpoint, "signing secret", &why))?;
        SigningSecret::from_bytes(&plain)
            .map_err(|_| unreadable(endpoint, "signing secret", &Unopened::Damaged))
    }

    /// Encrypts for its row the values of an endpoint that are used as secrets.
    pub(crate) fn seal_values(&self, endpoint: EndpointId, values: &[u8]) -> Result<Vec<u8>> {
        self.encrypt(&values_row(endpoint), values)
    }

    /// Decrypts the values of an endpoint. Fails like [`MasterKeys::open_secret`].
    pub(crate) fn open_values(&self, endpoint: EndpointId, sealed: &[u8]) -> Result<Vec<u8>> {
        self.decrypt(&values_row(endpoint), sealed)
            .map_err(|why| unreadable(endpoint, "values", &why))
    }

    /// Checks that a secret of an endpoint can be decrypted.
    pub(crate) fn try_secret(
        &self,
        endpoint: EndpointId,
        id: SecretId,
        sealed: &[u8],
    ) -> Result<(), Unopened> {
        self.decrypt(&secret_row(endpoint, id), sealed).map(drop)
    }

    /// Checks that the values of an endpoint can be decrypted.
    pub(crate) fn try_values(&self, endpoint: EndpointId, sealed: &[u8]) -> Result<(), Unopened> {
        self.decrypt(&values_row(endpoint), sealed).map(drop)
    }
}

/// Limits the log, because callers may ask for unreadable values as often as they like.
static UNREADABLE: Seldom = Seldom::new();

/// The error for a caller. The log names an endpoint and the key, at most once a minute.
fn unreadable(endpoint: EndpointId, what: &'static str, why: &Unopened) -> Error {
    if let Some(times) = UNREADABLE.happened() {
        tracing::error!(%endpoint, %why, times, "the {what} of an endpoint cannot be decrypted");
    }
    Error::internal(match why {
        Unopened::NoKey(_) => "a stored secret needs a master key that is not configured",
        Unopened::Damaged | Unopened::Refused(_) => "a stored secret is damaged",
    })
}

/// The mark of a ciphertext: the part before its nonce, which names its key. For other bytes, as
/// much of it as there is.
pub(crate) fn mark(sealed: &[u8]) -> &[u8] {
    let length = sealed.get(1).map_or(0, |length| usize::from(*length));
    sealed.get(..2 + length).unwrap_or(sealed)
}

/// The id of the key that a mark names. None for an unknown version.
pub(crate) fn key_id(mark: &[u8]) -> Option<&str> {
    match mark {
        [VERSION, length, id @ ..] if id.len() == usize::from(*length) => {
            std::str::from_utf8(id).ok().filter(|id| is_id(id))
        }
        _ => None,
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKeys({}, {} in all)", self.current, self.keys.len())
    }
}

fn is_id(id: &str) -> bool {
    (1..=KEY_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn secret_row(endpoint: EndpointId, id: SecretId) -> Vec<u8> {
    [b"endpoint_secrets\0".as_slice(), endpoint.as_bytes(), id.as_bytes()].concat()
}

fn values_row(endpoint: EndpointId) -> Vec<u8> {
    [b"endpoints\0".as_slice(), endpoint.as_bytes()].concat()
}

/// The parts of a ciphertext.
struct Parts<'a> {
    /// Everything before the nonce.
    mark: &'a [u8],
    key_id: &'a str,
    nonce: [u8; NONCE_LEN],
    /// Ends with the tag.
    body: &'a [u8],
}

fn split(sealed: &[u8]) -> Option<Parts<'_>> {
    let (&[version, length], _) = sealed.split_first_chunk::<2>()?;
    if version != VERSION {
        return None;
    }
    let (mark, rest) = sealed.split_at_checked(2 + usize::from(length))?;
    let (&nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
    Some(Parts { mark, key_id: std::str::from_utf8(&mark[2..]).ok()?, nonce, body })
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    fn ids(random: u64) -> (EndpointId, SecretId) {
        (EndpointId::new(Timestamp(1), random), SecretId::new(Timestamp(1), random))
    }

    fn keys(text: &str) -> MasterKeys {
        MasterKeys::parse(text).unwrap()
    }

    #[test]
    fn opens_what_it_sealed_only_for_its_own_row() {
        let keys = keys(&MasterKeys::generate_text("a"));
        let secret = SigningSecret::from_bytes(&[7; 32]).unwrap();
        let ((endpoint, id), (other_endpoint, other_id)) = (ids(1), ids(2));
        let sealed = keys.seal_secret(endpoint, id, &secret).unwrap();
        assert_eq!(keys.open_secret(endpoint, id, &sealed).unwrap().expose(), secret.expose());
        assert!(keys.open_secret(other_endpoint, id, &sealed).is_err());
        assert!(keys.open_secret(endpoint, other_id, &sealed).is_err());
        assert_ne!(keys.seal_secret(endpoint, id, &secret).unwrap(), sealed);
        assert!(!sealed.windows(8).any(|window| window == [7; 8]));
    }

    #[test]
    fn values_of_an_endpoint_open_for_it_alone_and_are_no_secret_of_it() {
        let keys = keys(&MasterKeys::generate_text("a"));
        let (endpoint, other) = (ids(1).0, ids(2).0);
        let sealed = keys.seal_values(endpoint, b"values").unwrap();
        assert_eq!(keys.open_values(endpoint, &sealed).unwrap(), b"values");
        assert!(keys.open_values(other, &sealed).is_err());
        assert!(keys.open_secret(endpoint, ids(1).1, &sealed).is_err());
        assert!(sealed.starts_with(&keys.current_mark()) && mark(&sealed) == keys.current_mark());
        assert_eq!(key_id(mark(&sealed)), Some("a"));
    }

    #[test]
    fn marks_of_anything_are_read() {
        let texts: [&[u8]; 6] =
            [b"", b"\x01", b"\x01\x05ab", b"\x02\x01a", b"\x01\x00", b"\x01\x02\xff\xff"];
        for text in texts {
            assert!(text.starts_with(mark(text)) && key_id(mark(text)).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_lost_key_may_be_named_and_opens_nothing() {
        let (old, new) = (MasterKeys::generate_text("old"), MasterKeys::generate_text("new"));
        let (endpoint, _) = ids(1);
        let sealed = keys(&old).seal_values(endpoint, b"v").unwrap();
        let without = keys(&format!("{new},old:lost"));
        assert!(without.is_lost("old") && !without.has("old") && without.has("new"));
        assert_eq!(without.try_values(endpoint, &sealed), Err(Unopened::NoKey("old".to_owned())));
        assert_eq!(
            MasterKeys::parse(&format!("old:lost,{new}")).unwrap_err(),
            InvalidMasterKeys::Lost("old".to_owned())
        );
        assert_eq!(
            MasterKeys::parse(&format!("{new},new:lost")).unwrap_err(),
            InvalidMasterKeys::Twice("new".to_owned())
        );
        let none = MasterKeys::none();
        assert!(
            none.is_none()
                && none.seal_values(endpoint, b"v").is_err()
                && none.open_values(endpoint, &sealed).is_err()
        );
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_an_error() {
        let keys = keys(&MasterKeys::generate_text("key-1"));
        let (endpoint, id) = ids(1);
        let sealed =
            keys.seal_secret(endpoint, id, &SigningSecret::from_bytes(&[7; 24]).unwrap()).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(keys.open_secret(endpoint, id, &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(keys.open_secret(endpoint, id, &sealed[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn old_keys_open_and_the_first_one_seals() {
        let (old, new) = (MasterKeys::generate_text("old"), MasterKeys::generate_text("new"));
        let (endpoint, id) = ids(1);
        let secret = SigningSecret::from_bytes(&[9; 32]).unwrap();
        let sealed = keys(&old).seal_secret(endpoint, id, &secret).unwrap();
        let rotated = keys(&format!("{new}, {old}"));
        assert_eq!(rotated.current_id(), "new");
        assert!(rotated.open_secret(endpoint, id, &sealed).is_ok());
        let resealed = rotated.seal_secret(endpoint, id, &secret).unwrap();
        assert!(keys(&new).open_secret(endpoint, id, &resealed).is_ok());
        assert!(keys(&old).open_secret(endpoint, id, &resealed).is_err());
    }

    #[test]
    fn refuses_texts_that_are_no_keys_and_shows_none() {
        let good = MasterKeys::generate_text("a");
        let short = format!("a:{}", STANDARD.encode([1; 31]));
        assert_eq!(MasterKeys::parse("").unwrap_err(), InvalidMasterKeys::None);
        assert_eq!(MasterKeys::parse("nocolon").unwrap_err(), InvalidMasterKeys::Id(1));
        assert_eq!(
            MasterKeys::parse(&good.replacen('a', "ä", 1)).unwrap_err(),
            InvalidMasterKeys::Id(1)
        );
        assert_eq!(MasterKeys::parse(&short).unwrap_err(), InvalidMasterKeys::Key("a".to_owned()));
        assert_eq!(MasterKeys::parse("a:???").unwrap_err(), InvalidMasterKeys::Key("a".to_owned()));
        assert_eq!(
            MasterKeys::parse(&format!("{good},{good}")).unwrap_err(),
            InvalidMasterKeys::Twice("a".to_owned())
        );
        assert!(!format!("{:?}", keys(&good)).contains(good.split_once(':').unwrap().1));
    }
}
