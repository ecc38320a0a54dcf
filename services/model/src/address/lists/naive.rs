//! The rules once more, by texts and octets instead of prefixes and indices.

use super::*;

fn port_in(entry: &str, port: u16) -> (String, Option<bool>) {
    let (host, ports) = match entry.strip_prefix('[') {
        Some(rest) => {
            rest.split_once(']').map(|(host, ports)| (host, ports.strip_prefix(':'))).unwrap()
        }
        None if entry.matches(':').count() == 1 => {
            entry.split_once(':').map(|(host, ports)| (host, Some(ports))).unwrap()
        }
        None => (entry, None),
    };
    let inside = ports.map(|ports| {
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        first.parse::<u16>().unwrap() <= port && port <= last.parse::<u16>().unwrap()
    });
    (host.to_owned(), inside)
}

fn bits(address: IpAddr) -> Vec<bool> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
}

fn covers(host: &str, name: Option<&str>, address: Option<IpAddr>) -> bool {
    if let Some(name) = name {
        return match host.strip_prefix('*') {
            Some(suffix) => name.ends_with(suffix),
            None => host == name,
        };
    }
    let address = bits(address.unwrap());
    let (network, length) = host.split_once('/').unwrap_or((host, "128"));
    let Ok(network) = network.parse::<IpAddr>() else { return false };
    let network = bits(network);
    let length = length.parse::<usize>().unwrap().min(network.len());
    network.len() == address.len() && network[..length] == address[..length]
}

/// Whether an entry of the list covers it, as (with ports, without ports).
fn listed(
    list: &[Entry],
    exact: bool,
    name: Option<&str>,
    address: Option<IpAddr>,
    port: u16,
) -> (bool, bool) {
    let mut found = (false, false);
    for entry in list {
        let (host, inside) = port_in(&entry.to_string(), port);
        let wide = host.contains('/') || host.contains('*');
        if covers(&host, name, address) && inside != Some(false) && !(exact && wide) {
            if inside.is_some() { found.0 = true } else { found.1 = true }
        }
    }
    found
}

fn port_is_open(policy: &Policy, port: u16) -> bool {
    policy.allowed_ports.contains(&port) || Policy::default().judge("example.com", port).is_ok()
}

/// Whether the host may be looked up, and whether by an entry.
pub fn name(policy: &Policy, name: &str, port: u16) -> Option<bool> {
    if listed(&policy.deny, false, Some(name), None, port) != (false, false) {
        return None;
    }
    let is_metadata = name == "metadata.google.internal";
    let (with_ports, without) = listed(&policy.allow, is_metadata, Some(name), None, port);
    if with_ports {
        return Some(true);
    }
    let public = name.ends_with(".example.com") || (policy.allow_loopback && name == "localhost");
    ((without || public) && port_is_open(policy, port)).then_some(without)
}

pub fn address(policy: &Policy, of: Option<bool>, address: IpAddr, port: u16) -> bool {
    let text = address.to_string();
    let never = ["0.0.0.0", "224.0.0.1"].contains(&text.as_str());
    if never || listed(&policy.deny, false, None, Some(address), port) != (false, false) {
        return false;
    }
    let is_metadata =
        ["169.254.169.254", "100.100.100.200", "fd00:ec2::254"].contains(&text.as_str());
    let (with_ports, without) = listed(&policy.allow, is_metadata, None, Some(address), port);
    let private = text.starts_with("10.") || text.starts_with("172.") || text == "fd00:ec2::255";
    let public = ["8.8.8.8", "2a00:1450::1"].contains(&text.as_str());
    let loopback = policy.allow_loopback && ["127.0.0.1", "::1"].contains(&text.as_str());
    let open = with_ports
        || without
        || public
        || loopback
        || (!is_metadata && private && of == Some(true));
    open && (of.is_some() || with_ports || port_is_open(policy, port))
}
