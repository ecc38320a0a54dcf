//! The parameters of libpq's connection strings, and what becomes of each: taken, taken with the
//! value that is true anyway, or refused with the reason. None is without effect in silence, for
//! one that is not heeded may be one that was to make a connection safer.

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    Taken,
    /// Only with these values, and they are true anyway; else refused with the reason.
    Only(&'static [&'static str], &'static str),
    /// Refused with the reason.
    Refused(&'static str),
}

use Use::{Only, Refused, Taken};

const NO_GSSAPI: &str = "the driver has no GSSAPI";
const UNREACHABLE: &str = "the driver sets no such socket option; database.acquire_timeout and database.statement_timeout bound every wait";
const NO_FILES: &str = "it is not read: write the parameters into database.url";
const UNENFORCED: &str = "the driver cannot enforce it";

/// All of libpq 18, with the driver's own spellings at the end.
pub(super) const WORDS: &[(&str, Use)] = &[
    ("host", Taken),
    ("hostaddr", Taken),
    ("port", Taken),
    ("dbname", Taken),
    ("user", Taken),
    ("password", Taken),
    ("connect_timeout", Taken),
    ("options", Taken),
    ("application_name", Taken),
    ("target_session_attrs", Taken),
    ("sslmode", Taken),
    ("sslrootcert", Taken),
    ("sslcert", Taken),
    ("sslkey", Taken),
    ("fallback_application_name", Refused("it is application_name here")),
    ("load_balance_hosts", Only(&["disable"], "hosts are tried in their order")),
    ("passfile", Refused("the password file is ~/.pgpass or that of the variable PGPASSFILE")),
    ("service", Refused(NO_FILES)),
    ("servicefile", Refused(NO_FILES)),
    ("requiressl", Refused("it is sslmode=require")),
    ("client_encoding", Only(&["UTF8", "UTF-8", "UNICODE", "auto"], "Outrider speaks UTF-8")),
    ("channel_binding", Only(&["disable", "prefer"], "the driver cannot bind")),
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
    ("min_protocol_version", Only(&["3.0"], "the driver speaks the protocol 3.0")),
    ("max_protocol_version", Only(&["3.0", "3.2", "latest"], "the driver speaks the protocol 3.0")),
    ("replication", Only(&["false", "off", "no", "0"], "Outrider does not replicate")),
    ("keepalives", Only(&["0"], UNREACHABLE)),
    ("keepalives_idle", Refused(UNREACHABLE)),
    ("keepalives_interval", Refused(UNREACHABLE)),
    ("keepalives_count", Refused(UNREACHABLE)),
    ("tcp_user_timeout", Refused(UNREACHABLE)),
    ("require_auth", Refused(UNENFORCED)),
    ("requirepeer", Refused(UNENFORCED)),
    (
        "sslpassword",
        Refused(
            "the driver reads no encrypted keys: decrypt the key to a file that only its owner reads",
        ),
    ),
    ("sslcrl", Refused("the driver reads no lists of revoked certificates")),
    ("sslcrldir", Refused("the driver reads no lists of revoked certificates")),
    ("sslkeylogfile", Refused("the driver writes no keys")),
    ("krbsrvname", Refused(NO_GSSAPI)),
    ("gsslib", Refused(NO_GSSAPI)),
    ("scram_client_key", Refused("the driver takes a password")),
    ("scram_server_key", Refused("the driver takes a password")),
    ("oauth_issuer", Refused("the driver has no OAuth")),
    ("oauth_client_id", Refused("the driver has no OAuth")),
    ("oauth_client_secret", Refused("the driver has no OAuth")),
    ("oauth_scope", Refused("the driver has no OAuth")),
    ("statement-cache-capacity", Taken),
];

/// Other spellings that the driver has, and libpq's for them.
pub(super) const ALIASES: [(&str, &str); 5] = [
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];

/// What is wrong with a parameter, if anything. Its value is never told.
pub(super) fn check(name: &str, value: &str) -> Result<(), String> {
    match WORDS.iter().find(|(word, _)| *word == name) {
        Some((_, Taken)) => Ok(()),
        Some((_, Only(values, _)))
            if values.iter().any(|taken| taken.eq_ignore_ascii_case(value)) =>
        {
            Ok(())
        }
        Some((_, Only(values, reason))) => {
            Err(format!("the parameter {name} can only be {}: {reason}", values.join(", ")))
        }
        Some((_, Refused(reason))) => Err(format!("the parameter {name} is not taken: {reason}")),
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> String {
    // A name may be anything, as a part of a password that was not escaped is.
    let shown: String = name
        .chars()
        .filter(|char| char.is_ascii_alphanumeric() || "_-".contains(*char))
        .take(40)
        .collect();
    let near = WORDS
        .iter()
        .map(|(word, _)| (distance(name, word), *word))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match near {
        Some((_, word)) => format!("there is no connection parameter {shown}; did you mean {word}?"),
        None => {
            "it has a connection parameter that does not exist; a character such as & or ? in a password must be escaped by %"
                .to_owned()
        }
    }
}

/// How many characters must be put in, left out or changed.
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
