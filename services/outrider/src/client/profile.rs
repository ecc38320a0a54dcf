//! Profiles: server, key and project by name, in a file of the user.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::Failure;

const DEFAULT: &str = "default";

/// A profile. The key is a secret.
#[derive(Default, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    pub server: Option<String>,
    pub key: Option<String>,
    pub project: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Profiles {
    profiles: BTreeMap<String, Profile>,
}

/// Returns the profile with this name. Returns an empty one if no name is given and there is no
/// `default`.
pub fn load(name: Option<&str>) -> Result<Profile, Failure> {
    match path() {
        Some(path) => read(&path, name),
        None => pick(Profiles::default(), "the profiles of a user without a home directory", name),
    }
}

/// Returns `$XDG_CONFIG_HOME/outrider/config.toml`, by default below `~/.config`.
fn path() -> Option<PathBuf> {
    let variable =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CONFIG_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".config")))?;
    Some(base.join("outrider").join("config.toml"))
}

fn read(path: &Path, name: Option<&str>) -> Result<Profile, Failure> {
    let shown = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return pick(Profiles::default(), &shown, name);
        }
        Err(error) => return Err(Failure::Usage(format!("cannot read {shown}: {error}"))),
    };
    let mode = std::fs::metadata(path)
        .map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(Failure::Usage(format!(
            "{shown} holds keys, but others may use it (mode {mode:o}): run chmod 600 {shown}"
        )));
    }
    // The message of the parser would show the line, which may contain a key.
    let profiles: Profiles = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        Failure::Usage(format!("{shown}, line {line}: {}", error.message()))
    })?;
    pick(profiles, &shown, name)
}

fn pick(mut profiles: Profiles, shown: &str, name: Option<&str>) -> Result<Profile, Failure> {
    match (profiles.profiles.remove(name.unwrap_or(DEFAULT)), name) {
        (Some(profile), _) => Ok(profile),
        (None, None) => Ok(Profile::default()),
        (None, Some(name)) => Err(Failure::Usage(format!("{shown} has no profile \"{name}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &Path, text: &str, mode: u32) -> PathBuf {
        let path = directory.join("config.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn refusal(path: &Path, name: Option<&str>) -> String {
        match read(path, name) {
            Err(Failure::Usage(message)) => message,
            _ => panic!("not refused"),
        }
    }

    #[test]
    fn profiles_are_found_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let text = "[profiles.default]\nkey = \"a\"\n[profiles.live]\nserver = \"https://x\"\nkey \
            = \"b\"\nproject = \"prj_1\"\n";
        let path = file(directory.path(), text, 0o600);
        assert_eq!(read(&path, None).ok().unwrap().key.as_deref(), Some("a"));
        let live = read(&path, Some("live")).ok().unwrap();
        assert_eq!(
            (live.server.as_deref(), live.project.as_deref()),
            (Some("https://x"), Some("prj_1"))
        );
        assert!(refusal(&path, Some("test")).contains("no profile \"test\""));
        let absent = directory.path().join("absent");
        assert!(read(&absent, None).ok().unwrap().key.is_none());
        assert!(refusal(&absent, Some("live")).contains("live"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o640, 0o602] {
            let path = file(directory.path(), "[profiles.default]\n", mode);
            assert!(refusal(&path, None).contains("chmod 600"));
        }
    }

    #[test]
    fn errors_name_the_line_and_not_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(
            directory.path(),
            "[profiles.default]\nkey = \"ork_secret\"\nserver = 5 # ork_secret\n",
            0o600,
        );
        let message = refusal(&path, None);
        assert!(message.contains("line 3") && !message.contains("ork_secret"), "{message}");
        let path = file(directory.path(), "[profiles.default]\nkeys = \"ork_secret\"\n", 0o600);
        let message = refusal(&path, None);
        assert!(message.contains("keys") && !message.contains("ork_secret"), "{message}");
    }
}
