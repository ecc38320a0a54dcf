use std::{fs, io};

use hickory_resolver::{
    net::{DnsError, NetError, NoRecords},
    proto::op::{Query, ResponseCode},
};
use tokio::time::advance;

use super::*;

/// A directory with the system's files, which is removed on drop.
struct Etc(PathBuf);

impl Etc {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("outrider-egress-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, file: &str, contents: &str) {
        fs::write(self.0.join(file), contents).unwrap();
    }

    fn resolver(&self) -> SystemResolver {
        let bounds = Bounds { names: 16, addresses: 4 };
        SystemResolver::of(self.0.join("resolv.conf"), self.0.join("hosts"), bounds).unwrap()
    }
}

impl Drop for Etc {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn addresses(resolver: &SystemResolver, name: &str) -> Vec<String> {
    resolver.resolve(name).await.unwrap().iter().map(ToString::to_string).collect()
}

async fn name_servers(resolver: &SystemResolver) -> Vec<String> {
    resolver.current().await;
    let files = resolver.0.files.lock().unwrap();
    files.servers.value.0.name_servers().iter().map(|server| server.ip.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_hosts_file_is_followed() {
    let etc = Etc::new("hosts");
    etc.write(
        "hosts",
        "# names\n203.0.113.1 A.example.com a_b.example.com # more\n2001:db8::1 \
        a.example.com\nx y\n",
    );
    let resolver = etc.resolver();
    assert_eq!(addresses(&resolver, "a.example.com").await, ["203.0.113.1", "2001:db8::1"]);
    assert_eq!(addresses(&resolver, "a_b.example.com").await, ["203.0.113.1"]);
    etc.write("hosts", "203.0.113.2 a.example.com b.example.com\n");
    advance(LOOK_EVERY / 2).await;
    assert_eq!(
        addresses(&resolver, "a.example.com").await,
        ["203.0.113.1", "2001:db8::1"],
        "not looked at for every name"
    );
    advance(LOOK_EVERY).await;
    for name in ["a.example.com", "b.example.com"] {
        assert_eq!(addresses(&resolver, name).await, ["203.0.113.2"], "{name}");
    }
    fs::remove_file(etc.0.join("hosts")).unwrap();
    advance(LOOK_EVERY).await;
    assert_eq!(
        addresses(&resolver, "b.example.com").await,
        ["203.0.113.2"],
        "what cannot be read changes nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn name_servers_are_followed_also_when_there_were_none_at_the_start() {
    let etc = Etc::new("servers");
    let resolver = etc.resolver();
    assert!(
        matches!(resolver.resolve("a.example.com").await, Err(NoAddress::Unable(_))),
        "there is nobody to ask"
    );
    for (contents, expected) in [
        ("# the network is not up\n", &[][..]),
        ("nameserver 192.0.2.1\n", &["192.0.2.1"]),
        ("nameserver 192.0.2.2\nnameserver 2001:db8::2\n", &["192.0.2.2", "2001:db8::2"]),
        ("search example.com\n", &["192.0.2.2", "2001:db8::2"]),
        ("nameserver 192.0.2.3\n", &["192.0.2.3"]),
    ] {
        etc.write("resolv.conf", contents);
        advance(LOOK_EVERY).await;
        assert_eq!(name_servers(&resolver).await, expected, "{contents}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_is_made_anew_only_for_what_is_new() {
    let etc = Etc::new("same");
    etc.write("resolv.conf", "nameserver 192.0.2.1\noptions attempts:7\n");
    let resolver = etc.resolver();
    let first = resolver.current().await;
    assert_eq!(first.resolver.options().attempts, 7);
    etc.write("resolv.conf", "nameserver 192.0.2.1\noptions attempts:7\n");
    advance(LOOK_EVERY).await;
    assert!(Arc::ptr_eq(&first, &resolver.current().await), "its cache is kept");
    etc.write("resolv.conf", "nameserver 192.0.2.1\noptions attempts:3\n");
    advance(LOOK_EVERY).await;
    let second = resolver.current().await;
    assert_eq!(second.resolver.options().attempts, 3);
}

#[test]
fn only_what_is_no_fault_of_the_names_is_excused() {
    let io = |kind| NetError::Io(Arc::new(io::Error::from(kind)));
    let dns = |code| NetError::Dns(DnsError::ResponseCode(code));
    let missing = NoRecords::new(Query::default(), ResponseCode::NXDomain);
    for (error, is_excused) in [
        (io(io::ErrorKind::NetworkUnreachable), true),
        (NetError::Io(Arc::new(io::Error::from_raw_os_error(24))), true),
        (NetError::NoConnections, true),
        (NetError::Busy, true),
        (NetError::Timeout, false),
        (NetError::Truncated, false),
        (dns(ResponseCode::ServFail), false),
        (dns(ResponseCode::Refused), false),
        (missing.into(), false),
    ] {
        let text = error.to_string();
        assert_eq!(matches!(NoAddress::from(error), NoAddress::Unable(_)), is_excused, "{text}");
    }
}
