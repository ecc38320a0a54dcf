//! Secrets at rest: AES-256-GCM under a master key whose id is stored along, bound to the row by additional data.
//!
//! A ciphertext is: version (1), length of the key's id, the id, 12 bytes of nonce, the encrypted bytes, 16 bytes of tag. The
//! additional data are the part before the nonce and the row's name, so that a ciphertext moved to another row does not open.

use std::{collections::HashMap, fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_model::{EndpointId, Error, Result, SecretId, SigningSecret};
use rand::RngExt;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// The id of a key, in bytes.
const KEY_ID_BYTES: usize = 32;

/// The keys with which secrets are encrypted: the current one, and old ones that still open what they closed.
#[derive(Clone)]
pub struct MasterKeys {
    current: String,
    keys: Arc<HashMap<String, LessSafeKey>>,
}

/// Why a text is not a list of master keys. It names ids only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMasterKeys {
    /// There is none.
    #[error("at least one key is required, as id:base64")]
    None,
    /// An entry has no id, or one with other characters.
    #[error("key {0} needs an id of 1 to 32 letters, digits, '_' or '-', a colon, and the key")]
    Id(usize),
    /// The key is not 32 bytes in base64.
    #[error("key {0} must be the base64 of 32 bytes")]
    Key(String),
    /// An id stands twice.
    #[error("key {0} is given twice")]
    Twice(String),
}

impl MasterKeys {
    /// From `id:base64`, more after commas: the first is the current key, the others only decrypt.
    pub fn parse(text: &str) -> Result<Self, InvalidMasterKeys> {
        let mut keys = HashMap::new();
        let mut current = None;
        for (index, entry) in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate() {
            let (id, key) = entry.split_once(':').filter(|(id, _)| is_id(id)).ok_or(InvalidMasterKeys::Id(index + 1))?;
            let bytes = STANDARD.decode(key).ok().filter(|bytes| bytes.len() == KEY_BYTES);
            let key = bytes.and_then(|bytes| UnboundKey::new(&AES_256_GCM, &bytes).ok());
            let key = key.ok_or_else(|| InvalidMasterKeys::Key(id.to_owned()))?;
            if keys.insert(id.to_owned(), LessSafeKey::new(key)).is_some() {
                return Err(InvalidMasterKeys::Twice(id.to_owned()));
            }
            current.get_or_insert_with(|| id.to_owned());
        }
        Ok(Self { current: current.ok_or(InvalidMasterKeys::None)?, keys: Arc::new(keys) })
    }

    /// The text of a new random key with this id, for [`MasterKeys::parse`].
    #[must_use]
    pub fn generate_text(id: &str) -> String {
        format!("{id}:{}", STANDARD.encode(rand::rng().random::<[u8; KEY_BYTES]>()))
    }

    /// The id of the key that encrypts.
    #[must_use]
    pub fn current_id(&self) -> &str {
        &self.current
    }

    fn encrypt(&self, row: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let key = self.keys.get(&self.current).ok_or_else(|| Error::internal("the current master key is missing"))?;
        let mut sealed = vec![VERSION, u8::try_from(self.current.len()).unwrap_or(u8::MAX)];
        sealed.extend_from_slice(self.current.as_bytes());
        let aad = Aad::from([sealed.as_slice(), row].concat());
        let nonce: [u8; NONCE_LEN] = rand::rng().random();
        sealed.extend_from_slice(&nonce);
        let mut body = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
            .map_err(|_| Error::internal("a secret was not encrypted"))?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    fn decrypt(&self, row: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = || {
            tracing::error!("a stored secret is damaged: it is not what this version writes");
            Error::internal("a stored secret is damaged")
        };
        let Parts { header, key_id, nonce, body } = split(sealed).ok_or_else(damaged)?;
        let Some(key) = self.keys.get(key_id) else {
            tracing::error!(key_id, "a stored secret needs a master key that is not configured");
            return Err(Error::internal("a stored secret needs a master key that is not configured"));
        };
        let aad = Aad::from([header, row].concat());
        let mut body = body.to_vec();
        let plain = key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut body).map_err(|_| {
            let why = "it is damaged, or was sealed with another key that had the same id";
            tracing::error!(key_id, why, "a stored secret does not open");
            Error::internal("a stored secret is damaged")
        })?;
        Ok(plain.to_vec())
    }

    /// Encrypts the secret of an endpoint for its row.
    pub(crate) fn seal_secret(&self, endpoint: EndpointId, id: SecretId, secret: &SigningSecret) -> Result<Vec<u8>> {
        self.encrypt(&secret_row(endpoint, id), secret.expose())
    }

    /// Decrypts the secret of an endpoint: an error when it is damaged, of another row, or of a key that is not there.
    pub(crate) fn open_secret(&self, endpoint: EndpointId, id: SecretId, sealed: &[u8]) -> Result<SigningSecret> {
        let plain = self.decrypt(&secret_row(endpoint, id), sealed)?;
        SigningSecret::from_bytes(&plain).map_err(|_| Error::internal("a stored secret is damaged"))
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKeys({}, {} in all)", self.current, self.keys.len())
    }
}

fn is_id(id: &str) -> bool {
    (1..=KEY_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn secret_row(endpoint: EndpointId, id: SecretId) -> Vec<u8> {
    [b"endpoint_secrets\0".as_slice(), endpoint.as_bytes(), id.as_bytes()].concat()
}

/// The parts of a ciphertext.
struct Parts<'a> {
    /// All before the nonce.
    header: &'a [u8],
    key_id: &'a str,
    nonce: [u8; NONCE_LEN],
    /// With the tag.
    body: &'a [u8],
}

fn split(sealed: &[u8]) -> Option<Parts<'_>> {
    let (&[version, length], _) = sealed.split_first_chunk::<2>()?;
    if version != VERSION {
        return None;
    }
    let (header, rest) = sealed.split_at_checked(2 + usize::from(length))?;
    let (&nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
    Some(Parts { header, key_id: std::str::from_utf8(&header[2..]).ok()?, nonce, body })
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
    fn every_changed_bit_and_every_cut_is_an_error() {
        let keys = keys(&MasterKeys::generate_text("key-1"));
        let (endpoint, id) = ids(1);
        let sealed = keys.seal_secret(endpoint, id, &SigningSecret::from_bytes(&[7; 24]).unwrap()).unwrap();
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
        assert_eq!(MasterKeys::parse(&good.replacen('a', "ä", 1)).unwrap_err(), InvalidMasterKeys::Id(1));
        assert_eq!(MasterKeys::parse(&short).unwrap_err(), InvalidMasterKeys::Key("a".to_owned()));
        assert_eq!(MasterKeys::parse("a:???").unwrap_err(), InvalidMasterKeys::Key("a".to_owned()));
        assert_eq!(MasterKeys::parse(&format!("{good},{good}")).unwrap_err(), InvalidMasterKeys::Twice("a".to_owned()));
        assert!(!format!("{:?}", keys(&good)).contains(good.split_once(':').unwrap().1));
    }
}
