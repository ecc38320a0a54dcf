//! The parameters of libpq's connection strings: each is supported, accepted with the values that
//! hold anyway, or refused with the reason. None is ignored in silence, because an ignored
//! parameter may be one that should have made a connection safer.

/// How a parameter is treated.
#[derive(Debug, Clone, Copy)]
pub(super) enum Support {
    Full,
    /// Accepted only with these values, which hold anyway. Otherwise refused with the reason.
    Only(&'static [&'static str], &'static str),
    /// Refused with the reason.
    Refused(&'static str),
}

use Support::{Full, Only, Refused};

const NO_GSSAPI: &str = "the driver has no GSSAPI";
const NO_SOCKET_OPTION: &str = "the driver sets no such socket option; \
    database.acquire_timeout and database.statement_timeout bound every wait";
const NO_FILES: &str = "it is not read: write the parameters into database.url";
const UNENFORCED: &str = "the driver cannot enforce it";

/// All parameters of libpq 18, and the driver's own at the end.
pub(super) const PARAMETERS: &[(&str, Support)] = &[
    ("host", Full),
    ("hostaddr", Full),
    ("port", Full),
    ("dbname", Full),
    ("user", Full),
    ("password", Full),
    ("connect_timeout", Full),
    ("options", Full),
    ("application_name", Full),
    ("target_session_attrs", Full),
    ("sslmode", Full),
    ("sslrootcert", Full),
    ("sslcert", Full),
    ("sslkey", Full),
    ("fallback_application_name", Refused("use application_name")),
    ("load_balance_hosts", Only(&["disable"], "hosts are tried in their order")),
    ("passfile", Refused("the password file is ~/.pgpass or that of the variable PGPASSFILE")),
    ("service", Refused(NO_FILES)),
    ("servicefile", Refused(NO_FILES)),
    ("requiressl", Refused("use sslmode=require")),
    ("client_encoding", Only(&["UTF8", "UTF-8", "UNICODE", "auto"], "Outrider speaks UTF-8")),
    ("channel_binding", Only(&["disable", "prefer"], "the driver does not support it")),
    ("gssencmode", Only(&["disable", "prefer"], NO_GSSAPI)),
    ("gssdelegation", Only(&["0"], NO_GSSAPI)),
    ("sslnegotiation", Only(&["postgres"], "the driver asks for TLS first")),
    ("sslcompression", Only(&["0"], "the driver compresses nothing")),
    ("sslcertmode", Only(&["allow"], UNENFORCED)),
    ("sslsni", Only(&["1"], "the driver always sends the name")),
    (
        "ssl_min_protocol_version",
        Only(&["TLSv1", "TLSv1.1", "TLSv1.2"], "the driver speaks TLS 1.2 and 1.3"),
    ),
    ("ssl_max_protocol_version", Only(&["TLSv1.3"], "the driver speaks TLS 1.2 and 1.3")),
    ("min_protocol_version", Only(&["3.0"], "the driver speaks protocol 3.0")),
    ("max_protocol_version", Only(&["3.0", "3.2", "latest"], "the driver speaks protocol 3.0")),
    ("replication", Only(&["false", "off", "no", "0"], "Outrider does not replicate")),
    ("keepalives", Only(&["0"], NO_SOCKET_OPTION)),
    ("keepalives_idle", Refused(NO_SOCKET_OPTION)),
    ("keepalives_interval", Refused(NO_SOCKET_OPTION)),
    ("keepalives_count", Refused(NO_SOCKET_OPTION)),
    ("tcp_user_timeout", Refused(NO_SOCKET_OPTION)),
    ("require_auth", Refused(UNENFORCED)),
    ("requirepeer", Refused(UNENFORCED)),
    (
        "sslpassword",
        Refused(
            "the driver reads no encrypted keys: decrypt the key to a file that only its owner can \
             read",
        ),
    ),
    ("sslcrl", Refused("the driver reads no lists of revoked certificates")),
    ("sslcrldir", Refused("the driver reads no lists of revoked certificates")),
    ("sslkeylogfile", Refused("the driver writes no keys")),
    ("krbsrvname", Refused(NO_GSSAPI)),
    ("gsslib", Refused(NO_GSSAPI)),
    ("scram_client_key", Refused("the driver requires the password")),
    ("scram_server_key", Refused("the driver requires the password")),
    ("oauth_issuer", Refused("the driver has no OAuth")),
    ("oauth_client_id", Refused("the driver has no OAuth")),
    ("oauth_client_secret", Refused("the driver has no OAuth")),
    ("oauth_scope", Refused("the driver has no OAuth")),
    ("statement-cache-capacity", Full),
];

/// The driver's spellings of some parameters, and libpq's.
pub(super) const ALIASES: [(&str, &str); 5] = [
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];

/// Fails if a parameter is not accepted. The error never contains its value.
pub(super) fn check(name: &str, value: &str) -> Result<(), String> {
    match PARAMETERS.iter().find(|(known, _)| *known == name) {
        Some((_, Full)) => Ok(()),
        Some((_, Only(values, _)))
            if values.iter().any(|accepted| accepted.eq_ignore_ascii_case(value)) =>
        {
            Ok(())
        }
        Some((_, Only(values, reason))) => {
            Err(format!("the parameter {name} can only be {}: {reason}", values.join(", ")))
        }
        Some((_, Refused(reason))) => {
            Err(format!("the parameter {name} is not supported: {reason}"))
        }
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> String {
    // The name may be anything, such as a part of a password that was not escaped.
    let shown: String = name
        .chars()
        .filter(|char| char.is_ascii_alphanumeric() || "_-".contains(*char))
        .take(40)
        .collect();
    let near = PARAMETERS
        .iter()
        .map(|(known, _)| (distance(name, known), *known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match near {
        Some((_, known)) => {
            format!("there is no connection parameter {shown}; did you mean {known}?")
        }
        None => "it has a connection parameter that does not exist; a character such as & or ? in \
                 a password must be escaped by %"
            .to_owned(),
    }
}

/// The edit distance: how many characters must be inserted, removed or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, from) in a.chars().take(64).enumerate() {
        let (mut corner, mut left) = (line, line + 1);
        for (column, to) in b.iter().enumerate() {
            let above = row[column + 1];
            left = (corner + usize::from(from != *to)).min(above + 1).min(left + 1);
            (corner, row[column + 1]) = (above, left);
        }
        row[0] = line + 1;
    }
    row[b.len()]
}
