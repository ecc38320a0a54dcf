//! The rule about ports: an endpoint is a web server, so the ports of other services are refused.
//!
//! The list joins the "bad ports" of the WHATWG Fetch standard with the ports of databases, queues,
//! caches and control planes. Ports on which webhooks are commonly received (80, 443, 3000, 5000,
//! 8000, 8080, 8443, 8888, 9000 and their neighbors) are not in it.

use super::refused::Refused;

const PORT: Refused = Refused::new("port-of-other-service", "a port of another service");

/// Inclusive ranges in ascending order, without overlaps.
const OTHER_SERVICES: &[(u16, u16)] = &[
    // Small services, FTP, SSH, telnet, mail, whois, DNS, TFTP, gopher, finger.
    (0, 1),
    (7, 7),
    (9, 9),
    (11, 11),
    (13, 13),
    (15, 15),
    (17, 17),
    (19, 23),
    (25, 25),
    (37, 37),
    (42, 43),
    (53, 53),
    (69, 69),
    (77, 77),
    (79, 79),
    // Kerberos, X.400, POP, portmapper, identd, NNTP, NTP, Windows RPC, NetBIOS, IMAP, SNMP.
    (87, 88),
    (95, 95),
    (101, 104),
    (109, 111),
    (113, 113),
    (115, 115),
    (117, 117),
    (119, 119),
    (123, 123),
    (135, 139),
    (143, 143),
    (161, 162),
    (179, 179),
    // LDAP, SMB, Kerberos passwords, SMTP over TLS, rexec, rlogin, rsh, printers, IPMI, IPP.
    (389, 389),
    (427, 427),
    (445, 445),
    (464, 465),
    (512, 515),
    (526, 526),
    (530, 532),
    (540, 540),
    (548, 548),
    (554, 554),
    (556, 556),
    (563, 563),
    (587, 587),
    (593, 593),
    (601, 601),
    (623, 623),
    (631, 631),
    (636, 636),
    // rsync, FTP, telnet, IMAP and POP over TLS, SOCKS, Java RMI.
    (873, 873),
    (989, 990),
    (992, 993),
    (995, 995),
    (1080, 1080),
    (1099, 1099),
    // IBM MQ, SQL Server, Oracle, H.323, PPTP, MQTT.
    (1414, 1414),
    (1433, 1434),
    (1521, 1521),
    (1719, 1720),
    (1723, 1723),
    (1883, 1883),
    // NFS, ZooKeeper, Docker, etcd.
    (2049, 2049),
    (2181, 2181),
    (2375, 2377),
    (2379, 2380),
    // Squid, iSCSI, the global catalog, MySQL, RDP, APCUPSD, Subversion.
    (3128, 3128),
    (3260, 3260),
    (3268, 3269),
    (3306, 3306),
    (3389, 3389),
    (3659, 3659),
    (3690, 3690),
    // NFS locks, ManageSieve, epmd, Salt.
    (4045, 4045),
    (4190, 4190),
    (4369, 4369),
    (4505, 4506),
    // SIP, PostgreSQL, AMQP, VNC, CouchDB, WinRM.
    (5060, 5061),
    (5432, 5432),
    (5671, 5672),
    (5900, 5901),
    (5984, 5986),
    // X11, Redis, Kubernetes, SANE, IRC, JMX, Neo4j.
    (6000, 6000),
    (6379, 6379),
    (6443, 6443),
    (6566, 6566),
    (6665, 6669),
    (6679, 6679),
    (6697, 6697),
    (7199, 7199),
    (7687, 7687),
    // Vault, Consul, Cassandra, Kafka, Elasticsearch, git, Amanda.
    (8200, 8201),
    (8300, 8302),
    (8500, 8503),
    (9042, 9042),
    (9092, 9094),
    (9160, 9160),
    (9200, 9200),
    (9300, 9300),
    (9418, 9418),
    (10080, 10080),
    // kubelet, kube-scheduler and its neighbors, memcached, RabbitMQ, CockroachDB, MongoDB,
    // ActiveMQ.
    (10248, 10259),
    (11211, 11211),
    (15672, 15672),
    (25672, 25672),
    (26257, 26257),
    (27017, 27019),
    (28017, 28017),
    (61613, 61616),
];

pub(super) fn check(port: u16, allowed: &[u16]) -> Result<(), Refused> {
    let found = OTHER_SERVICES.binary_search_by(|(first, last)| {
        if port < *first {
            std::cmp::Ordering::Greater
        } else if port > *last {
            std::cmp::Ordering::Less
        } else {
            std::cmp::Ordering::Equal
        }
    });
    if found.is_err() || allowed.contains(&port) { Ok(()) } else { Err(PORT) }
}

/// Whether webhooks may have a port without a permission of the installation.
#[must_use]
pub fn is_web_port(port: u16) -> bool {
    check(port, &[]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The "bad ports" of <https://fetch.spec.whatwg.org/#port-blocking>.
    const FETCH: &[u16] = &[
        0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95,
        101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179,
        389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601,
        636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566,
        6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
    ];

    #[test]
    fn the_ports_of_other_services_are_refused_and_those_of_webhooks_are_not() {
        let services = [
            22, 25, 53, 110, 135, 139, 143, 445, 465, 587, 873, 993, 995, 1433, 1521, 2049, 2375,
            2376, 2379, 2380, 3306, 3389, 5432, 5672, 5984, 6379, 6443, 8500, 9042, 9092, 9200,
            9300, 10250, 10255, 11211, 27017,
        ];
        for port in FETCH.iter().chain(&services) {
            assert_eq!(
                check(*port, &[]).map_err(|refused| refused.rule),
                Err("port-of-other-service"),
                "{port}"
            );
            assert_eq!(check(*port, &[1, *port]), Ok(()), "{port} is opened");
        }
        for port in [
            80, 81, 443, 3000, 3001, 4000, 4567, 5000, 5001, 7071, 8000, 8008, 8080, 8081, 8443,
            8888, 9000, 9090,
        ] {
            assert_eq!(check(port, &[]), Ok(()), "{port}");
        }
        for port in [9443, 18_000, 32_768, 49_152, 60_999, 65_535] {
            assert_eq!(check(port, &[]), Ok(()), "{port}");
        }
    }

    #[test]
    fn the_ranges_are_in_order_and_their_edges_count() {
        for pair in OTHER_SERVICES.windows(2) {
            assert!(pair[0].1 < pair[1].0, "{pair:?}");
        }
        for port in 0..=u16::MAX {
            let listed =
                OTHER_SERVICES.iter().any(|(first, last)| (*first..=*last).contains(&port));
            assert_eq!(check(port, &[]).is_err(), listed, "{port}");
        }
    }
}
