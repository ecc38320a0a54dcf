//! The bounds of the window, and how Redis is reached.

use std::time::Duration;

use outrider_settings::{Hidden, Invalid, MIB, millis, seconds, section, together};

use crate::{RedisTls, servers};

/// The longest prefix, in bytes.
const PREFIX_BYTES: usize = 64;

section! {
    /// Where jobs wait that are ready to be sent. It may be lost at any time: the database knows
    /// everything.
    pub struct Options in "queue" {
        /// `embedded` (memory of the one process) or `redis://HOST:PORT/DB` (Redis 6 or later, or
        /// Valkey); with TLS, `rediss://HOST:PORT/DB`. Separate several nodes of a cluster by
        /// commas. TLS is used with all of them or with none.
        pub url: Hidden = EMBEDDED.into();
        /// With Redis: whether the server is a Redis Cluster.
        pub cluster: bool = false;
        /// With Redis: how every key and channel begins. 1 to 64 bytes without braces and spaces.
        /// All processes must agree.
        pub prefix: String = "outrider".into();
        /// With Redis: number of streams that jobs are spread over. More than one is useful in a
        /// cluster. With another number the keys differ, and what is queued in the old ones is
        /// queued again. Each shard has a window of its own. All processes must agree.
        pub shards: u32 = 1, 1..=256;
        /// With Redis: maximum number of connections of one process for commands. Reading has
        /// connections of its own, one for each shard.
        pub pool_size: u32 = 8, 1..=1_024;
        /// With `rediss://`: a PEM file of the authorities to trust instead of the public ones;
        /// empty for the public ones.
        pub tls_ca_file: String = String::new();
        /// With `rediss://`: a PEM file of the certificate that is presented to Redis; empty for
        /// none.
        pub tls_certificate_file: String = String::new();
        /// A PEM file of the private key of `tls_certificate_file`.
        pub tls_private_key_file: String = String::new();
        /// With Redis: how long one command may take, including the wait for a connection.
        pub command_timeout: Duration = seconds(2), millis(1)..;
        /// How long a worker holds a job without renewing its lease before another worker takes it
        /// over. It should be more than 30s, the longest timeout of an endpoint.
        pub lease: Duration = seconds(45), seconds(1)..;
        /// The size of the window of jobs, waiting or held by workers, in units: one for each job,
        /// and one more for each 4 KiB of its payload and headers. It is divided into fair shares:
        /// alone, an organization has half of it, each of its projects a quarter, each endpoint an
        /// eighth. All processes must agree.
        pub window: u32 = 32_768, 8..;
        /// With Redis: maximum number of jobs in one script call. A script holds up all other
        /// commands.
        pub batch_jobs: usize = 256, 1..=1_000;
        /// With Redis: bytes of jobs after which a script call takes no further one; the rest goes
        /// into another call.
        pub batch_bytes: usize = 4 * MIB, 1..;
    }
    with rules;
}

/// Selects the queue in memory.
const EMBEDDED: &str = "embedded";

impl Options {
    /// Whether the queue is in the memory of the process.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        *self.url == *EMBEDDED
    }

    /// Maximum number of jobs that all shards hold together.
    #[must_use]
    pub fn jobs(&self) -> usize {
        (self.window as usize).saturating_mul(self.shards.max(1) as usize)
    }
}

fn rules(options: &Options) -> Result<(), Invalid> {
    let redis = ["redis://", "rediss://"].iter().any(|scheme| options.url.starts_with(scheme));
    Invalid::unless(
        options.is_embedded() || redis,
        "queue.url",
        "must be \"embedded\" or begin with redis:// or rediss://",
    )?;
    if redis {
        servers::parse(&options.url, options.cluster, &RedisTls::default())?;
    }
    let prefix = &options.prefix;
    Invalid::unless(
        (1..=PREFIX_BYTES).contains(&prefix.len())
            && !prefix.contains(|c: char| "{}".contains(c) || c.is_whitespace()),
        "queue.prefix",
        format!("must have 1 to {PREFIX_BYTES} bytes without braces and spaces"),
    )?;
    together(&[
        ("queue.tls_certificate_file", &options.tls_certificate_file),
        ("queue.tls_private_key_file", &options.tls_private_key_file),
    ])
}

#[cfg(test)]
mod tests {
    use outrider_settings::Section as _;

    use super::*;

    fn refused(options: Options) -> String {
        options.check().expect_err("wrong").key
    }

    #[test]
    fn each_wrong_field_is_named() {
        let fine = Options::default();
        assert_eq!(fine.check(), Ok(()));
        for (wrong, key) in [
            (Options { url: "http://example.com".into(), ..fine.clone() }, "queue.url"),
            (Options { prefix: "a{b}".to_owned(), ..fine.clone() }, "queue.prefix"),
            (Options { prefix: "x".repeat(65), ..fine.clone() }, "queue.prefix"),
            (Options { shards: 0, ..fine.clone() }, "queue.shards"),
            (Options { pool_size: 0, ..fine.clone() }, "queue.pool_size"),
            (Options { command_timeout: Duration::ZERO, ..fine.clone() }, "queue.command_timeout"),
            (Options { lease: millis(999), ..fine.clone() }, "queue.lease"),
            (Options { window: 7, ..fine.clone() }, "queue.window"),
            (Options { batch_jobs: 1_001, ..fine.clone() }, "queue.batch_jobs"),
            (Options { batch_bytes: 0, ..fine.clone() }, "queue.batch_bytes"),
            (
                Options { tls_certificate_file: "c.pem".to_owned(), ..fine.clone() },
                "queue.tls_private_key_file",
            ),
        ] {
            assert_eq!(refused(wrong), key);
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let options =
            Options { url: "redis://user:hunter2@host:port".into(), ..Options::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
        let error = options.check().expect_err("the port is no number");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
