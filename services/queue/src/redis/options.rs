//! How to reach Redis, and the bounds of the window there.

use std::{fmt, time::Duration};

use ::redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use outrider_model::{Result, error::Violations};

use super::tls::{RedisTls, is_careless, is_secure};
use crate::DEFAULT_WINDOW;

/// The most shards: each costs five keys, and each reader a connection for each.
const MAX_SHARDS: u32 = 1_024;
/// The most connections for commands.
const MAX_POOL_SIZE: u32 = 1_024;
/// The longest prefix, in bytes.
const PREFIX_BYTES: usize = 64;

/// How to reach Redis, and the bounds of the window there. All processes must have the same
/// `prefix`, `shards` and `window`.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host[:port][/database]`, or `rediss://` with TLS: one, or of a
    /// cluster one node or more to begin with, all with TLS or none. No default.
    pub urls: Vec<String>,
    /// Certificates for `rediss://`. Default none: the server must have a public one.
    pub tls: RedisTls,
    /// Whether it is a Redis Cluster. Default false.
    pub cluster: bool,
    /// What every key and channel begins with: 1 to 64 bytes without braces and spaces. Default
    /// "outrider".
    pub prefix: String,
    /// How many streams jobs are spread over, 1 to 1,024. With another number the keys are others:
    /// what is queued in the old ones is queued again. More than one is of use in a cluster.
    /// Default 1.
    pub shards: u32,
    /// The most connections for commands, 1 to 1,024; reading has its own, one for each shard and
    /// reader. Default 8.
    pub pool_size: u32,
    /// How long a command may take, with the wait for a connection: at least 1 ms. Default 2 s.
    pub command_timeout: Duration,
    /// The size of each shard's window, in units: jobs that wait or are held by workers, a unit for
    /// each and one more for each 4 KiB of its payload and headers. Divided into fair shares; at
    /// least 8. Default 32,768.
    pub window: u32,
    /// How long a job is held before another worker may take it over: at least 1 ms. Default 45 s.
    pub lease: Duration,
    /// The most jobs in one script call, 1 to 1,000. A script holds up everybody else. Default 256.
    pub batch_jobs: usize,
    /// When a script call has this many bytes of jobs, the rest goes into another. Default 4 MiB.
    pub batch_bytes: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            tls: RedisTls::default(),
            cluster: false,
            prefix: "outrider".to_owned(),
            shards: 1,
            pool_size: 8,
            command_timeout: Duration::from_secs(2),
            window: DEFAULT_WINDOW,
            lease: Duration::from_secs(45),
            batch_jobs: 256,
            batch_bytes: 4 << 20,
        }
    }
}

impl fmt::Debug for RedisOptions {
    /// Without the URLs: they may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("urls", &format_args!("{} not shown", self.urls.len()))
            .field("tls", &self.tls)
            .field("cluster", &self.cluster)
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("pool_size", &self.pool_size)
            .field("command_timeout", &self.command_timeout)
            .field("window", &self.window)
            .field("lease", &self.lease)
            .field("batch_jobs", &self.batch_jobs)
            .field("batch_bytes", &self.batch_bytes)
            .finish()
    }
}

impl RedisOptions {
    /// Refuses what cannot work, with the names of the fields.
    pub fn check(&self) -> Result<()> {
        self.validate().map(drop)
    }

    /// The servers; or every field that is wrong.
    pub(super) fn validate(&self) -> Result<Vec<ConnectionInfo>> {
        let mut violations = Violations::new();
        violations.require(!self.urls.is_empty(), "urls", "at least one is required");
        violations.require(
            self.cluster || self.urls.len() <= 1,
            "urls",
            "more than one is for a cluster only",
        );
        let servers = self.urls.iter().enumerate().filter_map(|(index, url)| {
            let info = url.as_str().into_connection_info().ok().filter(|info| !is_careless(info));
            // The parser's own message is not repeated: it may quote the URL.
            violations.require(
                info.is_some(),
                format!("urls[{index}]"),
                "must be redis://[user:password@]host[:port][/database], or rediss:// with TLS",
            );
            if let Some(why) = info.as_ref().and_then(|info| self.without_effect(url, info)) {
                violations.add(format!("urls[{index}]"), why);
            }
            // Commands and answers are small and many: none may wait for the one before to be
            // acknowledged.
            info.map(|info| {
                let settings = info.tcp_settings().clone().set_nodelay(true);
                // The library would tell its name, for which a user may lack the right: each
                // connection would then leave a refusal in the server's log.
                let redis = info.redis_settings().clone().set_skip_set_lib_name();
                info.set_tcp_settings(settings).set_redis_settings(redis)
            })
        });
        let servers: Vec<ConnectionInfo> = servers.collect();
        let secure = servers.iter().filter(|server| is_secure(server)).count();
        violations.require(
            secure == 0 || secure == servers.len(),
            "urls",
            "all must begin with rediss://, or none",
        );
        let servers: Vec<_> =
            servers.into_iter().filter_map(|server| self.tls.applied(server).ok()).collect();
        violations.require(
            secure == 0 || !servers.is_empty(),
            "tls",
            "the certificates or the key are not usable PEM",
        );
        let prefix = &self.prefix;
        violations.require(
            (1..=PREFIX_BYTES).contains(&prefix.len())
                && !prefix.contains(|c: char| "{}".contains(c) || c.is_whitespace()),
            "prefix",
            format!("must have 1 to {PREFIX_BYTES} bytes without braces and spaces"),
        );
        violations.require(
            (1..=MAX_SHARDS).contains(&self.shards),
            "shards",
            format!("must be 1 to {MAX_SHARDS}"),
        );
        violations.require(
            (1..=MAX_POOL_SIZE).contains(&self.pool_size),
            "pool_size",
            format!("must be 1 to {MAX_POOL_SIZE}"),
        );
        violations.require(
            self.command_timeout >= Duration::from_millis(1),
            "command_timeout",
            "must be at least 1 ms",
        );
        violations.require(
            self.lease >= Duration::from_millis(1),
            "lease",
            "must be at least 1 ms",
        );
        violations.require(
            (1..=1_000).contains(&self.batch_jobs),
            "batch_jobs",
            "must be 1 to 1,000",
        );
        violations.require(self.batch_bytes > 0, "batch_bytes", "must be at least 1");
        violations.finish()?;
        Ok(servers)
    }
}

impl RedisOptions {
    /// What of an address the library would pass over in silence, or is not supported.
    fn without_effect(&self, url: &str, info: &ConnectionInfo) -> Option<&'static str> {
        let redis = info.redis_settings();
        if redis.protocol() == ProtocolVersion::RESP3 {
            return Some(
                "must be without protocol=resp3, which is not supported: the queue uses RESP2",
            );
        }
        if url.contains(['?', '#']) {
            return Some(
                "must have nothing after the database: parameters have no effect (in a password \
                    write %3F and %23)",
            );
        }
        if redis.username().is_some_and(|name| !name.is_empty()) && redis.password().is_none() {
            return Some("a user name needs a password: without one neither is sent");
        }
        match redis.db() {
            0 => None,
            ..0 => Some("the number of the database must be 0 or more"),
            1.. if self.cluster => Some("a cluster has database 0 only"),
            1.. => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(urls: &[&str]) -> RedisOptions {
        RedisOptions {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..RedisOptions::default()
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        let wrong = RedisOptions {
            prefix: "a{b}".to_owned(),
            shards: 0,
            pool_size: 0,
            lease: Duration::ZERO,
            command_timeout: Duration::ZERO,
            batch_jobs: 1_001,
            batch_bytes: 0,
            ..options(&["http://example.com", "redis://two"])
        };
        let error = wrong.validate().expect_err("wrong");
        let fields: Vec<_> =
            error.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "urls",
                "urls[0]",
                "prefix",
                "shards",
                "pool_size",
                "command_timeout",
                "lease",
                "batch_jobs",
                "batch_bytes"
            ]
        );
        assert_eq!(options(&[]).validate().expect_err("none").violations[0].field, "urls");
        assert_eq!(
            options(&["redis://:secret@127.0.0.1:7000/1"]).validate().expect("good").len(),
            1
        );
    }

    #[test]
    fn tls_is_verified_and_for_all_or_none() {
        let field = |options: RedisOptions| {
            options.validate().expect_err("wrong").violations[0].field.clone()
        };
        assert_eq!(field(options(&["rediss://127.0.0.1#insecure"])), "urls[0]");
        assert_eq!(
            field(RedisOptions { cluster: true, ..options(&["rediss://a", "redis://b"]) }),
            "urls"
        );
        let tls = RedisTls {
            authorities: Some(b"-----BEGIN CERTIFICATE-----\n!".to_vec()),
            identity: None,
        };
        assert_eq!(field(RedisOptions { tls, ..options(&["rediss://a"]) }), "tls");
        assert_eq!(options(&["rediss://a"]).validate().expect("good").len(), 1);
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let why = |url: &str, cluster: bool| {
            let error = RedisOptions { cluster, ..options(&[url]) }.check().expect_err(url);
            assert!(!format!("{error:?}").contains("hunter2"));
            error.violations[0].description.clone()
        };
        for url in [
            "redis://h/0?db=3",
            "redis://h?protocol=resp2",
            "redis://h/0#x",
            "rediss://:hunter2@h/0?ssl_cert_reqs=none",
        ] {
            assert!(why(url, false).contains("nothing after the database"), "{url}");
        }
        for url in ["redis://h?protocol=resp3", "redis://:hunter2@h/0?db=3&protocol=3"] {
            assert!(why(url, false).contains("the queue uses RESP2"), "{url}");
        }
        assert!(why("redis://user@h/0", false).contains("a user name needs a password"));
        assert!(why("redis://h/-1", false).contains("must be 0 or more"));
        assert!(why("redis://h/3", true).contains("a cluster has database 0 only"));
        for good in [
            "redis://h",
            "redis://h:1/",
            "redis://h/3",
            "redis://user:hunter2@h/0",
            "redis://:hunter2@h/0",
            "redis://:%3F%23@h",
        ] {
            assert!(options(&[good]).check().is_ok(), "{good}");
        }
        assert!(RedisOptions { cluster: true, ..options(&["redis://h/0"]) }.check().is_ok());
    }

    #[test]
    fn no_secret_is_shown() {
        let options = options(&["redis://user:hunter2@host:port"]);
        assert!(!format!("{options:?}").contains("hunter2"));
        let error = options.validate().expect_err("the port is no number");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
