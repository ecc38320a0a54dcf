//! Where PostgreSQL is, as `database.url` says it in either form of libpq's. The driver gets
//! finished options and never the text, so that what cannot take effect is refused by every
//! command, with the reason.

#[cfg(test)]
mod tests;
mod text;
mod words;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use sqlx::postgres::PgConnectOptions;

use crate::session::RELIED_ON;

/// Which servers will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Every one.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that is in no recovery.
    Primary,
    /// One that takes no writes.
    ReadOnly,
    /// One that is in recovery.
    Standby,
    /// The same, or any if there is none.
    PreferStandby,
}

/// What is written, by name; nothing of it is printed.
#[derive(Default)]
pub(super) struct Given {
    words: BTreeMap<String, String>,
    /// `-c name=value` in other spellings.
    options: Vec<String>,
}

impl Given {
    /// What stands at its place in a URI; what is empty is not given.
    fn put(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.words.insert(name.to_owned(), value.to_owned());
        }
    }

    /// A parameter with its name. A later one replaces an earlier one.
    fn word(&mut self, name: &str, value: &str) {
        if let Some(setting) = name.strip_prefix("options[").and_then(|name| name.strip_suffix(']'))
        {
            self.options.push(option(setting, value));
        } else if ["currentSchema", "search_path"].contains(&name) {
            self.options.push(option("search_path", value));
        } else {
            let name = words::ALIASES
                .iter()
                .find(|(alias, _)| *alias == name)
                .map_or(name, |(_, word)| word);
            self.words.insert(name.to_owned(), value.to_owned());
        }
    }
}

fn option(name: &str, value: &str) -> String {
    format!("-c {name}={}", value.replace('\\', "\\\\").replace(' ', "\\ "))
}

/// A host and its port; none for the driver's default.
type Host = (Option<String>, Option<u16>);

/// A database of PostgreSQL, at one host or several. It has no `Debug`, for it may hold a password.
pub(crate) struct Target {
    words: BTreeMap<String, String>,
    hosts: Vec<Host>,
    settings: Vec<(String, String)>,
}

/// Whether a text is meant for PostgreSQL.
pub(crate) fn is_postgres(text: &str) -> bool {
    text::SCHEMES.iter().any(|scheme| text.starts_with(scheme))
        || (text.contains('=') && !text.starts_with("sqlite:") && !text.contains("://"))
}

impl Target {
    /// Reads no file and no variable. The error says what is wrong and never a value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text::SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
        let given = rest.map_or_else(|| text::pairs(text), text::uri)?;
        Self::of(given)
    }

    fn of(given: Given) -> Result<Self, String> {
        let Given { mut words, options } = given;
        for (name, value) in &words {
            words::check(name, value)?;
        }
        let hosts = hosts(&words)?;
        tls(&mut words)?;
        if let Some(attrs) = words.get("target_session_attrs") {
            wanted(attrs)?;
        }
        if let Some(timeout) = words.get("connect_timeout") {
            timeout.parse::<i32>().map_err(|_| "connect_timeout must be a number of seconds")?;
        }
        let all = words.get("options").into_iter().chain(&options);
        let settings = settings(&all.cloned().collect::<Vec<_>>().join(" "))?;
        Ok(Self { words, hosts, settings })
    }

    /// What variables of libpq add to it, or an error for one that cannot take effect.
    pub fn with_environment(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        for (name, word) in VARIABLES {
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else { continue };
            words::check(word, &value).map_err(|why| format!("the variable {name}: {why}"))?;
            if ["target_session_attrs", "connect_timeout", "sslmode"].contains(&word)
                && !self.words.contains_key(word)
            {
                self.words.insert(word.to_owned(), value);
            }
        }
        let Self { words, settings, .. } = self;
        let checked = Self::of(Given { words, options: Vec::new() })?;
        Ok(Self { settings, ..checked })
    }

    /// For each host in turn, what the driver needs.
    pub fn connects(&self) -> Result<Vec<PgConnectOptions>, String> {
        self.hosts.iter().map(|(host, port)| self.connect(host.as_deref(), *port)).collect()
    }

    /// What each session is set to before ours.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// How long a host may take.
    pub fn connect_timeout(&self) -> Option<Duration> {
        let seconds: u64 =
            self.words.get("connect_timeout")?.parse().ok().filter(|seconds| *seconds > 0)?;
        Some(Duration::from_secs(seconds))
    }

    /// Which servers will do. Of several hosts, where nothing is said, who writes wants one that
    /// takes writes.
    pub fn wanted(&self, read_only: bool) -> Result<Wanted, String> {
        let wanted =
            self.words.get("target_session_attrs").map(|attrs| wanted(attrs)).transpose()?;
        match wanted {
            None if self.hosts.len() > 1 && !read_only => Ok(Wanted::ReadWrite),
            None => Ok(Wanted::Any),
            Some(Wanted::ReadOnly | Wanted::Standby | Wanted::PreferStandby) if !read_only => Err(
                "target_session_attrs: Outrider writes; only read-write, primary and any will do"
                    .to_owned(),
            ),
            Some(wanted) => Ok(wanted),
        }
    }

    /// By the driver's own URL, of parts that are known to be good: it adds variables and the
    /// password file.
    fn connect(&self, host: Option<&str>, port: Option<u16>) -> Result<PgConnectOptions, String> {
        let mut url = "postgres:///?".to_owned();
        let mut put = |name: &str, value: &str| {
            let _ = write!(url, "{name}={}&", escaped(value));
        };
        for (name, value) in
            self.words.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str()))
        {
            put(name, value);
        }
        if let Some(host) = host {
            put("host", host);
        }
        if let Some(port) = port {
            put("port", &port.to_string());
        }
        if host.is_some_and(|host| host.starts_with('/')) {
            // Of a socket libpq asks no TLS.
            put("sslmode", "disable");
        }
        if !self.words.contains_key("application_name") {
            put("application_name", "outrider");
        }
        url.parse().map_err(|_| "the driver does not take its parameters".to_owned())
    }
}

/// What the driver knows too.
const PASSED_ON: [&str; 9] = [
    "dbname",
    "user",
    "password",
    "application_name",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "statement-cache-capacity",
];

/// Variables that set a parameter. Those that are not here are the driver's (PGHOST, PGPORT,
/// PGUSER, PGPASSWORD, PGDATABASE, PGAPPNAME, PGOPTIONS, PGPASSFILE, and the files of TLS), or
/// without effect (PGDATESTYLE, PGTZ, PGGEQO).
const VARIABLES: [(&str, &str); 16] = [
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGSSLMODE", "sslmode"),
    ("PGSERVICE", "service"),
    ("PGREQUIRESSL", "requiressl"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGCLIENTENCODING", "client_encoding"),
];

/// Every host with its port.
fn hosts(words: &BTreeMap<String, String>) -> Result<Vec<Host>, String> {
    let list =
        |name: &str| words.get(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    if let (Some(names), Some(addresses)) = (&names, &addresses) {
        if names.len() != addresses.len() {
            return Err(format!(
                "{} host names do not match {} hostaddr values",
                names.len(),
                addresses.len()
            ));
        }
        if words.get("sslmode").is_some_and(|mode| mode == "verify-full") && names != addresses {
            return Err("hostaddr: the driver verifies the name that it dials: leave it out with sslmode=verify-full".to_owned());
        }
    }
    for address in addresses.iter().flatten().filter(|address| !address.is_empty()) {
        address.parse::<std::net::IpAddr>().map_err(|_| "hostaddr must be an IP address")?;
    }
    if names.iter().flatten().any(|name| name.starts_with('@')) {
        return Err("host: the driver knows no abstract sockets".to_owned());
    }
    let hosts = addresses.or(names).unwrap_or_else(|| vec![""]);
    let ports = ports.unwrap_or_else(|| vec![""]);
    if ports.len() != 1 && ports.len() != hosts.len() {
        return Err(format!("{} port numbers do not match {} hosts", ports.len(), hosts.len()));
    }
    let ports = ports.iter().map(|port| port_of(port)).collect::<Result<Vec<_>, _>>()?;
    let host = |host: &&str| (!host.is_empty()).then(|| (*host).to_owned());
    Ok(hosts
        .iter()
        .enumerate()
        .map(|(index, name)| (host(name), ports[index.min(ports.len() - 1)]))
        .collect())
}

fn port_of(text: &str) -> Result<Option<u16>, String> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .map(Some)
            .ok_or_else(|| "port must be 1 to 65535".to_owned()),
    }
}

/// Modes that mean another thing to the driver, as libpq means them.
fn tls(words: &mut BTreeMap<String, String>) -> Result<(), String> {
    const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
    let mode = words.get("sslmode").cloned();
    if mode.as_deref() == Some("allow") {
        return Err("sslmode=allow is not taken: the driver would never use TLS; prefer does where the server can".to_owned());
    }
    if mode.as_ref().is_some_and(|mode| !MODES.contains(&mode.as_str())) {
        return Err(format!("sslmode must be one of {}", MODES.join(", ")));
    }
    match (words.get("sslrootcert").map(String::as_str), mode.as_deref()) {
        (Some("system"), None | Some("verify-full")) => {
            words.remove("sslrootcert");
            words.insert("sslmode".to_owned(), "verify-full".to_owned());
        }
        (Some("system"), Some(_)) => {
            return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
        }
        (Some(_), Some("require")) => {
            words.insert("sslmode".to_owned(), "verify-ca".to_owned());
        }
        _ => {}
    }
    Ok(())
}

fn wanted(text: &str) -> Result<Wanted, String> {
    Ok(match text {
        "any" => Wanted::Any,
        "read-write" => Wanted::ReadWrite,
        "primary" => Wanted::Primary,
        "read-only" => Wanted::ReadOnly,
        "standby" => Wanted::Standby,
        "prefer-standby" => Wanted::PreferStandby,
        _ => return Err("target_session_attrs must be any, read-write, primary, read-only, standby or prefer-standby".to_owned()),
    })
}

/// `-c a=b -cc=d --e=f` as PostgreSQL takes them apart. They are set by statement, for poolers
/// refuse them at the start.
fn settings(text: &str) -> Result<Vec<(String, String)>, String> {
    let (mut parts, mut escaped, mut part) = (Vec::new(), false, String::new());
    for char in text.chars().chain([' ']) {
        match char {
            char if escaped => {
                part.push(char);
                escaped = false;
            }
            '\\' => escaped = true,
            char if char.is_whitespace() => {
                if !part.is_empty() {
                    parts.push(std::mem::take(&mut part));
                }
            }
            char => part.push(char),
        }
    }
    let (mut settings, mut parts) = (Vec::new(), parts.into_iter());
    while let Some(part) = parts.next() {
        let setting = match (part.as_str(), part.strip_prefix("-c"), part.strip_prefix("--")) {
            ("-c", ..) => parts.next().unwrap_or_default(),
            (_, Some(setting), _) => setting.to_owned(),
            (_, _, Some(setting)) => setting.replace('-', "_"),
            _ => return Err("options: only -c NAME=VALUE and --NAME=VALUE are taken".to_owned()),
        };
        let (name, value) = setting.split_once('=').ok_or("options: a setting has no =")?;
        settings.push((setting_name(name)?, value.to_owned()));
    }
    Ok(settings)
}

fn setting_name(name: &str) -> Result<String, String> {
    if name.is_empty()
        || !name.chars().all(|char| char.is_ascii_alphanumeric() || "_.".contains(char))
    {
        return Err("options: the name of a setting has letters, digits, _ and . only".to_owned());
    }
    let ours =
        RELIED_ON.iter().map(|(name, _)| *name).chain(["statement_timeout", "transaction_timeout"]);
    match ours.into_iter().find(|ours| ours.eq_ignore_ascii_case(name)) {
        Some(ours) => Err(format!("options: {ours} is set by Outrider")),
        None => Ok(name.to_owned()),
    }
}

/// For a part of a query.
fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// A text for a terminal or a log, without passwords and keys.
#[must_use]
pub fn masked(text: &str) -> String {
    const SECRET: [&str; 5] =
        ["password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"];
    if !is_postgres(text) || Target::parse(text).is_err() {
        return "…".to_owned();
    }
    let scheme = text::SCHEMES.iter().find(|scheme| text.starts_with(**scheme));
    let Some(scheme) = scheme else {
        let Ok(given) = text::pairs(text) else { return "…".to_owned() };
        let shown = |(name, value): (&String, &String)| {
            let value = if SECRET.contains(&name.as_str()) { "…" } else { value };
            format!("{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
        };
        return given.words.iter().map(shown).collect::<Vec<_>>().join(" ");
    };
    let rest = &text[scheme.len()..];
    let (main, query) =
        rest.split_once('?').map_or((rest, None), |(main, query)| (main, Some(query)));
    let (authority, path) = main.find('/').map_or((main, ""), |at| main.split_at(at));
    let authority = match authority.rsplit_once('@') {
        Some((user, hosts)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:…@{hosts}"),
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if SECRET.contains(&name) || name.contains('%') => format!("{name}=…"),
        _ => pair.to_owned(),
    };
    let query = query
        .map(|query| format!("?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&")));
    format!("{scheme}{authority}{path}{}", query.unwrap_or_default())
}
