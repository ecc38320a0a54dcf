//! Reads secrets from files: every key that holds a secret can be given as `KEY_file`, the path of
//! a file that contains the value.

use std::{collections::BTreeMap, collections::HashMap, fs::File, io::Read as _, path::PathBuf};

use toml::{Table, Value};

use super::{
    error::Error,
    keys::{READ_LATE, read_from_files, variable},
    sources::ValueOrigin,
};

/// Maximum size of a file, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The files that layers name: for each key, the file of the strongest layer.
#[derive(Default)]
pub struct SecretFiles(BTreeMap<&'static str, (PathBuf, ValueOrigin)>);

impl SecretFiles {
    /// Takes the paths out of a configuration file.
    pub fn take(&mut self, layer: &mut Table, origin: &ValueOrigin) -> Result<(), Error> {
        for key in read_from_files() {
            let Some((section, name)) = key.split_once('.') else { continue };
            let Some(values) = layer.get_mut(section).and_then(Value::as_table_mut) else {
                continue;
            };
            match values.remove(&format!("{name}_file")) {
                None => {}
                Some(Value::String(path)) => self.set(key, &path, origin.clone()),
                Some(_) => return Err(wrong(key, origin, "must be the path of a file")),
            }
        }
        Ok(())
    }

    /// Whether a variable or a flag names a file. If so, remembers the path.
    pub fn given(&mut self, name: &str, path: &str, origin: ValueOrigin) -> bool {
        let known = read_from_files().find(|key| match origin {
            ValueOrigin::Variable(_) => {
                name.strip_suffix("_FILE").is_some_and(|name| name == variable(key))
            }
            _ => name.strip_suffix("_file").is_some_and(|name| name == *key),
        });
        if let Some(key) = known {
            self.set(key, path, origin);
        }
        known.is_some()
    }

    fn set(&mut self, key: &'static str, path: &str, origin: ValueOrigin) {
        if path.is_empty() {
            self.0.remove(key);
        } else {
            self.0.insert(key, (path.into(), origin));
        }
    }

    /// Applies the values. It is an error to give a key in both ways, because it is not clear which
    /// one is meant.
    pub fn read(
        self,
        merged: &mut Table,
        origins: &mut HashMap<String, ValueOrigin>,
    ) -> Result<(), Error> {
        for (key, (path, origin)) in self.0 {
            refuse_both(merged, origins, key, &origin)?;
            let value = read(key, &path, &origin)?;
            put(merged, key, value);
            origins.insert(key.to_owned(), ValueOrigin::SecretFile(path));
        }
        match origins.get(&format!("{READ_LATE}_file")).cloned() {
            Some(origin) => refuse_both(merged, origins, READ_LATE, &origin),
            None => Ok(()),
        }
    }
}

fn refuse_both(
    merged: &Table,
    origins: &HashMap<String, ValueOrigin>,
    key: &str,
    file: &ValueOrigin,
) -> Result<(), Error> {
    let Some(origin) = origins.get(key).filter(|_| !text(merged, key).is_empty()) else {
        return Ok(());
    };
    Err(wrong(key, file, &format!("is given, and {key} too ({origin}): give one of them")))
}

fn text<'a>(merged: &'a Table, key: &str) -> &'a str {
    let (section, name) = key.split_once('.').unwrap_or((key, ""));
    merged
        .get(section)
        .and_then(|section| section.get(name))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn put(merged: &mut Table, key: &str, value: String) {
    let (section, name) = key.split_once('.').unwrap_or((key, ""));
    if let Some(section) = merged.get_mut(section).and_then(Value::as_table_mut) {
        section.insert(name.to_owned(), Value::String(value));
    }
}

/// Returns the text without the line ending that editors and `echo` add.
fn read(key: &str, path: &PathBuf, origin: &ValueOrigin) -> Result<String, Error> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    read.map_err(|error| wrong(key, origin, &format!("cannot read {}: {error}", path.display())))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(key, origin, &format!("{} is larger than 64 KiB", path.display())));
    }
    let value = text.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(wrong(key, origin, &format!("{} is empty", path.display())));
    }
    Ok(value.to_owned())
}

fn wrong(key: &str, origin: &ValueOrigin, message: &str) -> Error {
    Error::Value {
        origin: origin.to_string(),
        key: format!("{key}_file"),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::config::{keys::secret_keys, sources::Sources};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn every_secret_may_come_from_a_file_in_every_layer() {
        let (url, token) =
            (file("postgres://me:hunter2@host/name\n"), file(&format!("{TOKEN}\r\n")));
        let redis = file("redis://:hunter2@host/0");
        let path = |file: &tempfile::NamedTempFile| file.path().display().to_string();
        let config = file(&format!("[database]\nurl_file = \"{}\"\n", path(&url)));
        let explained = Sources {
            file: Some(config.path().into()),
            environment: vec![("OUTRIDER_INTERNAL_TOKEN_FILE".into(), path(&token))],
            flags: vec![format!("queue.url_file={}", path(&redis))],
        }
        .explain()
        .unwrap();
        let in_force = explained.validated().unwrap();
        assert_eq!(&*in_force.database.url, "postgres://me:hunter2@host/name");
        assert_eq!(&*in_force.queue.url, "redis://:hunter2@host/0");
        assert_eq!(&*in_force.internal.token, TOKEN);
        let json = explained.json();
        assert_eq!(json["database.url"]["origin"], format!("from file {}", path(&url)));
        assert_eq!(json["internal.token"]["origin"], format!("from file {}", path(&token)));
        let text = explained.text();
        assert!(!text.contains("hunter2") && !text.contains(TOKEN), "{text}");
    }

    #[test]
    fn both_ways_at_once_are_refused_and_both_keys_named() {
        let secret = file(TOKEN);
        for key in secret_keys() {
            let flags =
                vec![format!("{key}={TOKEN}"), format!("{key}_file={}", secret.path().display())];
            let error = Sources { flags, ..Sources::default() }.load().unwrap_err().to_string();
            assert!(
                error.contains(&format!("{key}_file: is given, and {key} too"))
                    && !error.contains(TOKEN),
                "{error}"
            );
        }
        // An empty value counts as not given.
        let flags = vec![
            "internal.token=".into(),
            format!("internal.token_file={}", secret.path().display()),
        ];
        let config = Sources { flags, ..Sources::default() }.load().unwrap();
        assert_eq!(&*config.internal.token, TOKEN);
    }

    #[test]
    fn files_that_hold_nothing_are_named() {
        let (empty, long) = (file("\n"), file(&"x".repeat(70_000)));
        for path in
            ["/nonexistent/secret", empty.path().to_str().unwrap(), long.path().to_str().unwrap()]
        {
            let environment = vec![("OUTRIDER_DATABASE_URL_FILE".to_owned(), path.to_owned())];
            let error =
                Sources { environment, ..Sources::default() }.load().unwrap_err().to_string();
            assert!(error.contains("database.url_file") && error.contains(path), "{error}");
        }
        let flags = vec!["gateway.listen_file=x".to_owned()];
        assert!(
            Sources { flags, ..Sources::default() }
                .load()
                .unwrap_err()
                .to_string()
                .contains("there is no such key")
        );
    }
}
