//! Our own listeners, which must not be reachable through the egress.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
};

use outrider_rpc::listen::is_out_of_files;

#[derive(Default)]
pub(crate) struct OwnListeners(Mutex<Vec<SocketAddr>>);

impl OwnListeners {
    pub(crate) fn add(&self, listener: SocketAddr) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !listeners.contains(&listener) {
            listeners.push(listener);
        }
    }

    /// Whether a connection to `target` would arrive at one of our listeners. Fails if that cannot
    /// be determined.
    pub(crate) fn contains(&self, target: SocketAddr) -> io::Result<bool> {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter().filter(|listener| listener.port() == target.port()) {
            if listener.ip().to_canonical() == target.ip()
                || (listener.ip().is_unspecified() && is_here(target.ip())?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether an address belongs to an interface of this machine, which is the case if it can be
/// bound. In doubt, returns true.
fn is_here(address: IpAddr) -> io::Result<bool> {
    match UdpSocket::bind((address, 0)) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(false),
        Err(error) if is_out_of_files(&error) => Err(error),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_listeners_by_address_and_by_wildcard() {
        let own = OwnListeners::default();
        own.add("127.0.0.1:81".parse().unwrap());
        own.add("0.0.0.0:82".parse().unwrap());
        for (target, expected) in [
            ("127.0.0.1:81", true),
            ("127.0.0.2:81", false),
            ("127.0.0.2:82", true),
            ("203.0.113.9:82", false),
            ("127.0.0.1:83", false),
        ] {
            assert_eq!(own.contains(target.parse().unwrap()).unwrap(), expected, "{target}");
        }
    }
}
