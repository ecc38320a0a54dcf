//! The servers that `queue.url` names, and the TLS to reach them.

use ::redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use outrider_settings::Invalid;

mod tls;

pub use tls::RedisTls;
pub(crate) use tls::is_secure;

const KEY: &str = "queue.url";

/// Parses the servers of a URL, separated by commas: one server, or the first nodes of a cluster.
pub(crate) fn parse(
    urls: &str,
    cluster: bool,
    tls: &RedisTls,
) -> Result<Vec<ConnectionInfo>, Invalid> {
    let refuse_unless = |good: bool, message: &str| Invalid::unless(good, KEY, message);
    let servers: Vec<ConnectionInfo> =
        urls.split(',').map(|url| server(url.trim(), cluster)).collect::<Result<_, _>>()?;
    refuse_unless(cluster || servers.len() == 1, "more than one needs queue.cluster")?;
    let secure = servers.iter().filter(|server| is_secure(server)).count();
    refuse_unless(
        secure == 0 || secure == servers.len(),
        "all must begin with rediss://, or none",
    )?;
    let servers: Result<Vec<_>, _> =
        servers.into_iter().map(|server| tls.applied(server)).collect();
    servers
        .map_err(|_| Invalid::new("queue.tls_*", "the certificates or the key are not usable PEM"))
}

fn server(url: &str, cluster: bool) -> Result<ConnectionInfo, Invalid> {
    let info = url.into_connection_info().ok().filter(|info| !tls::is_careless(info));
    // The parser's own message may quote the URL, so it is not repeated.
    let info = info.ok_or_else(|| {
        Invalid::new(
            KEY,
            "must be redis://[user:password@]host[:port][/database], or rediss:// with TLS",
        )
    })?;
    if let Some(why) = without_effect(url, &info, cluster) {
        return Err(Invalid::new(KEY, why));
    }
    // Commands and replies are small and many, so none may wait for the acknowledgment of the one
    // before.
    let settings = info.tcp_settings().clone().set_nodelay(true);
    // The library would send its name. A user may lack the right to do so, and then each connection
    // would leave a refusal in the server's log.
    let redis = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(info.set_tcp_settings(settings).set_redis_settings(redis))
}

/// Returns why a URL is refused that the library would accept: the library would silently ignore a
/// part of it, or use a feature that Outrider does not support.
fn without_effect(url: &str, info: &ConnectionInfo, cluster: bool) -> Option<&'static str> {
    let redis = info.redis_settings();
    if redis.protocol() == ProtocolVersion::RESP3 {
        return Some(
            "must be without protocol=resp3, which is not supported: the queue uses RESP2",
        );
    }
    if url.contains(['?', '#']) {
        return Some(
            "must have nothing after the database: parameters have no effect \
             (in a password write %3F and %23)",
        );
    }
    if redis.username().is_some_and(|name| !name.is_empty()) && redis.password().is_none() {
        return Some("a user name needs a password: without one neither is sent");
    }
    match redis.db() {
        0 => None,
        ..0 => Some("the number of the database must be 0 or more"),
        1.. if cluster => Some("a cluster has database 0 only"),
        1.. => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(urls: &str, cluster: bool) -> Result<usize, Invalid> {
        parse(urls, cluster, &RedisTls::default()).map(|servers| servers.len())
    }

    #[test]
    fn one_server_is_named_or_nodes_of_a_cluster() {
        assert_eq!(plain("redis://:secret@127.0.0.1:7000/1", false), Ok(1));
        assert_eq!(plain("redis://a, redis://b", true), Ok(2));
        for (urls, cluster) in
            [("", false), ("http://example.com", false), ("redis://a,redis://b", false)]
        {
            assert_eq!(plain(urls, cluster).expect_err(urls).key, KEY);
        }
    }

    #[test]
    fn tls_is_verified_and_for_all_or_none() {
        assert_eq!(plain("rediss://127.0.0.1#insecure", false).expect_err("careless").key, KEY);
        assert_eq!(plain("rediss://a,redis://b", true).expect_err("mixed").key, KEY);
        let tls = RedisTls {
            authorities: Some(b"-----BEGIN CERTIFICATE-----\n!".to_vec()),
            identity: None,
        };
        assert_eq!(parse("rediss://a", false, &tls).expect_err("no PEM").key, "queue.tls_*");
        assert_eq!(plain("rediss://a", false), Ok(1));
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let why = |url: &str, cluster: bool| {
            let error = plain(url, cluster).expect_err(url);
            assert!(!format!("{error:?}").contains("hunter2"));
            error.message
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
            assert!(plain(good, false).is_ok(), "{good}");
        }
        assert!(plain("redis://h/0", true).is_ok());
    }
}
