//! Opens a connection to one of several checked addresses.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use outrider_rpc::{DialError, NoConnection, listen::is_out_of_files};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::options::Options;

/// How long an address is tried alone before the next one is tried too.
const HEAD_START: Duration = Duration::from_millis(250);

/// Returns the first connection that succeeds. Addresses are tried in order, each with a head
/// start, all within the connect timeout.
pub(crate) async fn connect(
    addresses: Vec<SocketAddr>,
    options: &Options,
) -> Result<TcpStream, DialError> {
    let addresses = order(addresses, options);
    if addresses.is_empty() {
        let source = options.source_address.map(tracing::field::display);
        tracing::debug!(source, "no address of the source address's family");
        return Err(DialError::ConnectFailed(NoConnection::OtherFamily));
    }
    let late = || Err(DialError::ConnectFailed(NoConnection::Late(options.connect_timeout)));
    timeout(options.connect_timeout, race(addresses, options.source_address))
        .await
        .unwrap_or_else(|_| late())
}

/// Alternates the address families, IPv6 first, and leaves out addresses that the source address
/// cannot reach.
fn order(addresses: Vec<SocketAddr>, options: &Options) -> VecDeque<SocketAddr> {
    let reachable = |address: &SocketAddr| {
        options.source_address.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
    };
    let (v6, v4): (Vec<_>, Vec<_>) =
        addresses.into_iter().filter(reachable).partition(SocketAddr::is_ipv6);
    let longer = v6.len().max(v4.len());
    (0..longer)
        .flat_map(|at| [v6.get(at), v4.get(at)])
        .flatten()
        .copied()
        .take(options.max_addresses)
        .collect()
}

async fn race(
    mut addresses: VecDeque<SocketAddr>,
    source: Option<IpAddr>,
) -> Result<TcpStream, DialError> {
    let mut tries = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if tries.is_empty() {
            match addresses.pop_front() {
                Some(address) => tries.push(open(address, source)),
                None => {
                    return Err(failure.unwrap_or(DialError::ConnectFailed(NoConnection::Other)));
                }
            }
        }
        tokio::select! {
            Some(tried) = tries.next() => match tried {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    if failure.as_ref().is_none_or(|known| telling(&error) > telling(known)) {
                        failure = Some(error);
                    }
                }
            },
            () = sleep(HEAD_START), if !addresses.is_empty() => {
                tries.extend(addresses.pop_front().map(|address| open(address, source)));
            }
        }
    }
}

/// Ranks failures by how much they say about the host: a refused connection says more than an
/// address that could not be tried, and a response says more than none.
fn telling(failure: &DialError) -> u8 {
    match failure {
        DialError::ConnectFailed(NoConnection::Refused | NoConnection::Reset) => 3,
        DialError::ConnectFailed(NoConnection::Other | NoConnection::Late(_)) => 2,
        DialError::ConnectFailed(_) => 1,
        _ => 0,
    }
}

async fn open(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, DialError> {
    let socket = socket(address, source).map_err(|error| {
        // A machine without IPv6 must not keep an endpoint waiting that has IPv6 only.
        if address.is_ipv6() && source.is_none() && !is_out_of_files(&error) {
            return DialError::ConnectFailed(NoConnection::Unreachable);
        }
        tracing::error!(%error, source = source.map(tracing::field::display),
            "no socket for an outgoing connection");
        DialError::EgressUnavailable
    })?;
    let opened = async {
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    opened.await.map_err(|error| {
        if address.is_ipv4() && error.kind() == io::ErrorKind::AddrNotAvailable {
            tracing::error!(%error, "no local port for an outgoing connection");
            return DialError::EgressUnavailable;
        }
        tracing::debug!(%address, %error, "an address did not take the connection");
        DialError::ConnectFailed(why(&error))
    })
}

fn why(error: &io::Error) -> NoConnection {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NoConnection::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => NoConnection::Reset,
        // The system's own timeout, which is longer than ours by default, has passed.
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::TimedOut => NoConnection::Unreachable,
        _ => NoConnection::Other,
    }
}

fn socket(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        // Otherwise a port in TIME_WAIT could not be bound, even for another destination.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_within_the_bound_and_the_sources_family() {
        let all = sockets(&["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1", "[2a00::1]:1"]);
        let ordered = |options: Options| Vec::from(order(all.clone(), &options));
        let both = ordered(Options { max_addresses: 3, ..Options::default() });
        assert_eq!(both, sockets(&["[2a00::1]:1", "1.1.1.1:1", "1.1.1.2:1"]));
        let v6 = ordered(Options {
            source_address: Some("2a00::9".parse().unwrap()),
            ..Options::default()
        });
        assert_eq!(v6, sockets(&["[2a00::1]:1"]));
    }

    #[tokio::test]
    async fn goes_on_to_the_next_address_and_binds_the_source() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options =
            Options { source_address: Some("127.0.0.7".parse().unwrap()), ..Options::default() };
        let stream = connect(vec![closed, listener.local_addr().unwrap()], &options).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.7");
        assert!(stream.nodelay().unwrap());
        assert_eq!(
            connect(vec![closed], &options).await.unwrap_err(),
            DialError::ConnectFailed(NoConnection::Refused)
        );
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_is_the_egress_fault() {
        let options =
            Options { source_address: Some("203.0.113.7".parse().unwrap()), ..Options::default() };
        assert_eq!(
            connect(sockets(&["127.0.0.1:9"]), &options).await.unwrap_err(),
            DialError::EgressUnavailable
        );
        let other = connect(sockets(&["[::1]:9"]), &options).await.unwrap_err();
        assert_eq!(other, DialError::ConnectFailed(NoConnection::OtherFamily));
    }
}
