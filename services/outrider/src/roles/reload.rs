//! Reads the configuration again while the process runs: at SIGHUP, and when the content of its
//! file changes. Only a new egress policy takes effect. Other changes are logged.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use outrider_rpc::PolicyInForce;
use outrider_telemetry::{
    catalog::process::{CONFIGURATION_INVALID, CONFIGURATION_READ},
    essential,
};
use tokio::{
    signal::unix::Signal,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{check::check_all, role::Roles};
use crate::config::{Config, Sources, changed_keys};

/// Time between two looks at the file. Contents are compared, so that replaced symbolic links of
/// mounted files are noticed too.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The keys that take effect at once.
const AT_ONCE: [&str; 4] =
    ["egress.allow", "egress.deny", "egress.allow_loopback", "egress.allowed_ports"];

/// Reads the configuration again, and applies it.
pub struct Reload {
    sources: Sources,
    /// The last content of the file, or `None` while it cannot be read.
    contents: Option<Vec<u8>>,
    /// The last valid configuration.
    config: Config,
    roles: Roles,
    in_force: PolicyInForce,
}

impl Reload {
    /// Begins with what the process was started with.
    pub fn new(sources: Sources, config: Config, roles: Roles, in_force: PolicyInForce) -> Self {
        was_read(true);
        // A change between the start and now is noticed at the first look.
        Self { sources, contents: None, config, roles, in_force }
    }

    /// Follows the configuration until `shutdown`.
    pub fn spawn(mut self, mut prompted: Signal, shutdown: CancellationToken) {
        tokio::spawn(essential("configuration", async move {
            let mut ticks = interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let by_signal = tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = ticks.tick() => false,
                    Some(()) = prompted.recv() => true,
                };
                let looked = spawn_blocking(move || {
                    self.look(by_signal);
                    self
                });
                match looked.await {
                    Ok(reload) => self = reload,
                    Err(error) => {
                        return tracing::error!(%error, "the configuration is no longer \
                            followed");
                    }
                }
            }
        }));
    }

    /// Reads the configuration again if prompted, or if the content of the file changed.
    fn look(&mut self, by_signal: bool) {
        let file_is_new = match self.sources.file.as_deref().map(read) {
            None => false,
            Some(contents) => {
                contents.is_some()
                    && contents != std::mem::replace(&mut self.contents, contents.clone())
            }
        };
        if !by_signal && !file_is_new {
            return;
        }
        let loaded = self.load();
        was_read(loaded.is_ok());
        match loaded {
            Ok(config) => self.take(config, by_signal),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "the new configuration is invalid; the previous one stays in force"
                );
            }
        }
    }

    /// Refuses what a start would refuse. Otherwise the error would appear at the next start, when
    /// nobody expects it.
    fn load(&self) -> Result<Config> {
        let config = self.sources.load()?;
        check_all(&config, &self.roles)?;
        Ok(config)
    }

    fn take(&mut self, config: Config, by_signal: bool) {
        let later: Vec<String> = changed_keys(&self.config, &config)
            .into_iter()
            .filter(|key| !AT_ONCE.contains(&key.as_str()))
            .collect();
        if !later.is_empty() {
            tracing::warn!(
                keys = later.join(", "),
                "these changed keys take effect at the next start"
            );
        }
        let policy = config.egress.policy();
        let (allow, deny, loopback) =
            (policy.allow.len(), policy.deny.len(), policy.allow_loopback);
        if self.in_force.replace(policy) {
            tracing::info!(
                allow,
                deny,
                "a new egress policy is in force; connections that it refuses are closed"
            );
            if loopback {
                tracing::warn!(
                    "the egress permits LOOPBACK addresses (allow_loopback): for development only"
                );
            }
        } else if by_signal && later.is_empty() {
            tracing::info!("SIGHUP: the configuration was read again and has not changed");
        }
        self.config = config;
    }
}

fn was_read(valid: bool) {
    CONFIGURATION_INVALID.set(i64::from(!valid));
    if valid {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        CONFIGURATION_READ.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::{Mutex, MutexGuard, PoisonError},
    };

    use super::*;
    use crate::roles::role::Role;

    /// Metrics are global to the process, so only one test at a time may change them.
    static TURN: Mutex<()> = Mutex::new(());

    struct Bench {
        _turn: MutexGuard<'static, ()>,
        file: tempfile::NamedTempFile,
        in_force: PolicyInForce,
        reload: Reload,
    }

    impl Bench {
        fn new(text: &str) -> Self {
            let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
            let config = sources.load().unwrap();
            let in_force = PolicyInForce::from(config.egress.policy());
            let reload = Reload::new(sources, config, Roles::new(&[Role::All]), in_force.clone());
            Self { _turn: turn, file, in_force, reload }
        }

        fn write(&self, text: &str) {
            std::fs::write(self.file.path(), text).unwrap();
        }

        fn permits(&self) -> bool {
            self.in_force.get().judge_address(None, Ipv4Addr::new(10, 0, 0, 1).into(), 443).is_ok()
        }
    }

    #[test]
    fn what_a_start_would_refuse_is_refused() {
        let mut bench = Bench::new("[egress]\nallow = [\"10.0.0.0/8\"]\n");
        bench.reload.look(false);
        for (also, why) in [
            ("allowed_ports = [8080]\n", "egress.allowed_ports"),
            ("[log]\nlevel = \"verbose\"\n", "log.level"),
            ("[worker]\ndispatch_url = \"http://dispatch:8082/v1\"\n", "worker.dispatch_url"),
        ] {
            let text = format!("[egress]\n{also}");
            bench.write(&text);
            let refused = format!("{:#}", bench.reload.load().unwrap_err());
            assert!(refused.starts_with(why), "{text}: {refused}");
            bench.reload.look(false);
            assert!(bench.permits(), "{text}");
            assert_eq!(CONFIGURATION_INVALID.get(), 1, "{text}");
        }
        bench.write("[egress]\n");
        bench.reload.look(false);
        assert!(!bench.permits());
        assert_eq!(CONFIGURATION_INVALID.get(), 0);
        bench.reload.roles = Roles::new(&[Role::Worker]);
        assert!(format!("{:#}", bench.reload.load().unwrap_err()).starts_with("database.url"));
    }

    #[test]
    fn a_new_file_is_seen_by_its_content_and_one_that_is_not_valid_changes_nothing() {
        let mut bench = Bench::new("[egress]\nallow = [\"10.0.0.0/8\"]\n");
        bench.reload.look(false);
        assert!(bench.permits());
        bench.write(
            "[egress]\nallow = [\"10.0.0.0/8\"]\ndeny = [\"10.0.0.1\"]\n[log]\nlevel = \"debug\"\n",
        );
        bench.reload.look(false);
        assert!(!bench.permits());
        for broken in ["[egress]\nallow = [\"10.0.0.1/8\"]\n", "[egress\n", "[egress]\nalow = []\n"]
        {
            bench.write(broken);
            bench.reload.look(false);
            bench.reload.look(true);
            assert!(!bench.permits(), "{broken}");
        }
        std::fs::remove_file(bench.file.path()).unwrap();
        bench.reload.look(false);
        assert!(!bench.permits());
        bench.write("[egress]\nallow = [\"10.0.0.1:443\"]\n");
        bench.reload.look(false);
        assert!(bench.permits());
        assert_eq!(bench.reload.config.log.level, Config::default().log.level);
    }

    #[test]
    fn keys_that_differ_are_named_without_their_values() {
        let mut config = Config::default();
        config.log.level = "debug".into();
        config.secrets.master_key = "k1:c2VjcmV0".into();
        config.egress.deny = vec![outrider_settings::Parsed("10.0.0.1".parse().unwrap())];
        assert_eq!(
            changed_keys(&Config::default(), &config),
            ["egress.deny", "log.level", "secrets.master_key"]
        );
        assert!(changed_keys(&config, &config).is_empty());
    }
}
