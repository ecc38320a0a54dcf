//! Channels to roles in other processes.

use std::{sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use crate::{
    channels::role::RoleChannel,
    tls::{Protocol, Tls, connect},
};

/// Window of one call between roles, in bytes, in each direction.
pub const STREAM_WINDOW: u32 = 1024 * 1024;

/// Window of one connection between roles, in bytes. It is fixed and large, not adaptive: half of
/// it is also the limit of h2 for small frames that have arrived but are not read yet. An adaptive
/// window starts so small that a burst of 130 short answers ends the connection
/// (ENHANCE_YOUR_CALM, too_many_data_frames).
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Why a URL is not the address of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Not a URL with a host.
    #[error("must be a URL such as http://dispatch:8082, with nothing after it")]
    NotAUrl,
    /// Plain HTTP, although this process has certificates: the role then expects TLS too.
    #[error(
        "must begin with https://, because TLS between roles is configured \
         (internal.tls_certificate_file)"
    )]
    Plain,
    /// TLS, without certificates for it.
    #[error(
        "must begin with http://, unless TLS between roles is configured \
         (internal.tls_certificate_file)"
    )]
    NoTls,
}

/// Maximum size of an answer's head, in bytes. An error travels in it with all its details, whose
/// size is bounded too ([`crate::to_status`]).
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// Window of a stream's answer, in bytes, if its reader is an external client, which may be slow.
pub const LONG_STREAM_WINDOW: u32 = 64 * 1024;

/// Parses the address of a server: `http://HOST:PORT` or `https://HOST:PORT`. A path, parameters or
/// a user would have no effect on a channel, and are refused.
pub fn parse(url: &str) -> Result<Uri, ChannelError> {
    let uri: Uri = url.parse().map_err(|_| ChannelError::NotAUrl)?;
    let given = url.split_once("://").map(|(_, rest)| rest.strip_suffix('/').unwrap_or(rest));
    let authority = uri
        .authority()
        .filter(|authority| given == Some(authority.as_str()))
        .ok_or(ChannelError::NotAUrl)?;
    let port_is_one = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        Some(_) => authority.port_u16().is_some_and(|port| port > 0),
        // The authority begins with a user.
        None => false,
    };
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    if http && !authority.host().is_empty() && port_is_one {
        Ok(uri)
    } else {
        Err(ChannelError::NotAUrl)
    }
}

/// Returns a channel to `http://HOST:PORT`, or with TLS to `https://HOST:PORT`, whose server must
/// have a certificate for HOST. It connects on first use, and again after the connection broke. It
/// notices within 15 seconds if a peer silently disappears.
pub fn channel(url: &str, tls: Option<&Arc<Tls>>) -> Result<RoleChannel, ChannelError> {
    let channel = with_window(url, tls, STREAM_WINDOW)?;
    url.parse().map(|url| RoleChannel::new(channel, &url)).map_err(|_| ChannelError::NotAUrl)
}

/// Like [`channel`], with this window for each answer.
pub(crate) fn with_window(
    url: &str,
    tls: Option<&Arc<Tls>>,
    window: u32,
) -> Result<Channel, ChannelError> {
    let uri = parse(url)?;
    let host = uri.host().ok_or(ChannelError::NotAUrl)?;
    let endpoint = match (uri.scheme_str(), tls) {
        (Some("http"), None) => return Ok(tuned(Endpoint::from(uri), window).connect_lazy()),
        (Some("https"), Some(_)) => {
            Endpoint::from_shared(format!("http://{host}")).map_err(|_| ChannelError::NotAUrl)?
        }
        (Some("http"), Some(_)) => return Err(ChannelError::Plain),
        (Some("https"), None) => return Err(ChannelError::NoTls),
        _ => return Err(ChannelError::NotAUrl),
    };
    // The endpoint's own address is never dialed. It says http, because tonic would add its own TLS
    // to https, and the connector below already adds ours.
    let (host, port) = (
        host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        uri.port_u16().unwrap_or(443),
    );
    let (host, tls): (Arc<str>, _) = (host.into(), tls.cloned());
    let connector = tower::service_fn(move |_: Uri| {
        let (host, tls) = (Arc::clone(&host), tls.clone());
        async move { connect(tls.as_deref(), Protocol::Grpc, &host, port).await.map(TokioIo::new) }
    });
    Ok(tuned(endpoint.origin(uri), window).connect_with_connector_lazy(connector))
}

fn tuned(endpoint: Endpoint, window: u32) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(window)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEAD_BYTES)
        .tcp_nodelay(true)
}

#[cfg(test)]
mod tests {
    use outrider_model::{Error, Reason};
    use tonic::Status;

    use super::*;
    use crate::wire::status::to_status;

    #[test]
    fn an_address_is_scheme_host_and_port_with_nothing_after_them() {
        for good in [
            "http://dispatch:8082",
            "https://dispatch",
            "http://127.0.0.1:1/",
            "https://[::1]:8443",
            "HTTP://h:1",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "dispatch",
            "dispatch:8082",
            "/x",
            "http://",
            "http:///x",
            "ftp://h:1",
            "http://h:",
            "http://h:0",
            "http://h:65536",
            "http://h:1/v1",
            "http://h:1//",
            "http://h:1?x=1",
            "http://h:1/?x",
            "http://h:1#x",
            "http://h:1/#x",
            "http://u@h:1",
            "http://u:p@h:1",
            "http://@h:1",
            "http://h:1 ",
            "unix:/run/x",
        ] {
            assert_eq!(parse(bad), Err(ChannelError::NotAUrl), "{bad}");
        }
    }

    #[tokio::test]
    async fn callers_learn_what_roles_say_and_nothing_of_the_transport() {
        let role = channel("http://inside.example:8082", None).unwrap();
        assert_eq!(role.url(), "http://inside.example:8082");
        let refused = role.call_error("dispatch", &to_status(Error::field("a", "is wrong")));
        assert_eq!((refused.reason, &*refused.message), (Reason::InvalidField, "a: is wrong"));
        let failure = Status::unavailable("tcp connect error to 10.0.0.7");
        let broken = role.call_error("dispatch", &failure);
        assert_eq!(
            (broken.reason, &*broken.message),
            (Reason::Unavailable, "a server that is needed does not answer")
        );
        assert!(broken.retry_after.is_some());
    }
}
