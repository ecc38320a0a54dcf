//! The target of a connection: `database.url` in either form of libpq's connection strings. The
//! driver gets finished options and never the text, so that every command refuses a parameter that
//! cannot take effect, with the reason.

mod given;
mod parameters;
mod server_kind;
#[cfg(test)]
mod tests;
mod text;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use sqlx::postgres::PgConnectOptions;

use super::settings::RELIED_ON;
use given::Given;
pub(crate) use server_kind::ServerKind;

/// A host and its port. None stands for the driver's default.
type Host = (Option<String>, Option<u16>);

/// A PostgreSQL database at one or several hosts. It has no `Debug`, because it may hold a
/// password.
pub(crate) struct Target {
    values: BTreeMap<String, String>,
    hosts: Vec<Host>,
    settings: Vec<(String, String)>,
}

/// Whether a `database.url` is meant for PostgreSQL.
pub(crate) fn is_postgres(text: &str) -> bool {
    text::SCHEMES.iter().any(|scheme| text.starts_with(scheme))
        || (text.contains('=') && !text.starts_with("sqlite:") && !text.contains("://"))
}

impl Target {
    /// Parses a connection string. Reads no file and no variable. The error never contains a value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text::SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
        let given = rest.map_or_else(|| text::pairs(text), text::uri)?;
        Self::of(given)
    }

    fn of(given: Given) -> Result<Self, String> {
        let Given { mut values, options } = given;
        for (name, value) in &values {
            parameters::check(name, value)?;
        }
        let hosts = hosts(&values)?;
        tls(&mut values)?;
        if let Some(attrs) = values.get("target_session_attrs") {
            ServerKind::parse(attrs)?;
        }
        if let Some(timeout) = values.get("connect_timeout") {
            timeout.parse::<i32>().map_err(|_| "connect_timeout must be a number of seconds")?;
        }
        let all = values.get("options").into_iter().chain(&options);
        let settings = settings(&all.cloned().collect::<Vec<_>>().join(" "))?;
        Ok(Self { values, hosts, settings })
    }

    /// Adds what libpq's environment variables give. Fails for one that cannot take effect.
    pub fn with_environment(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        for (name, parameter) in VARIABLES {
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else { continue };
            parameters::check(parameter, &value)
                .map_err(|why| format!("the variable {name}: {why}"))?;
            if ["target_session_attrs", "connect_timeout", "sslmode"].contains(&parameter)
                && !self.values.contains_key(parameter)
            {
                self.values.insert(parameter.to_owned(), value);
            }
        }
        let Self { values, settings, .. } = self;
        let checked = Self::of(Given { values, options: Vec::new() })?;
        Ok(Self { settings, ..checked })
    }

    /// The driver's options for each host, in order.
    pub fn connects(&self) -> Result<Vec<PgConnectOptions>, String> {
        self.hosts.iter().map(|(host, port)| self.connect(host.as_deref(), *port)).collect()
    }

    /// The settings that each session gets before Outrider's own.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// How long a connection to one host may take.
    pub fn connect_timeout(&self) -> Option<Duration> {
        let seconds: u64 =
            self.values.get("connect_timeout")?.parse().ok().filter(|seconds| *seconds > 0)?;
        Some(Duration::from_secs(seconds))
    }

    /// The kind of server to connect to. With several hosts, the default for a process that writes
    /// is a server that accepts writes.
    pub fn server_kind(&self, read_only: bool) -> Result<ServerKind, String> {
        let attrs = self.values.get("target_session_attrs");
        let kind = attrs.map(|attrs| ServerKind::parse(attrs)).transpose()?;
        match kind {
            None if self.hosts.len() > 1 && !read_only => Ok(ServerKind::ReadWrite),
            None => Ok(ServerKind::Any),
            Some(ServerKind::ReadOnly | ServerKind::Standby | ServerKind::PreferStandby)
                if !read_only =>
            {
                Err("target_session_attrs must be read-write, primary or any, because Outrider \
                     writes"
                    .to_owned())
            }
            Some(kind) => Ok(kind),
        }
    }

    /// Builds the driver's own URL from checked parts. The driver adds variables and the password
    /// file.
    fn connect(&self, host: Option<&str>, port: Option<u16>) -> Result<PgConnectOptions, String> {
        let mut url = "postgres:///?".to_owned();
        let mut put = |name: &str, value: &str| {
            let _ = write!(url, "{name}={}&", escaped(value));
        };
        for (name, value) in
            self.values.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str()))
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
            // As in libpq, a socket has no TLS.
            put("sslmode", "disable");
        }
        if !self.values.contains_key("application_name") {
            put("application_name", "outrider");
        }
        url.parse().map_err(|_| "the driver does not accept its parameters".to_owned())
    }
}

/// Parameters that the driver knows too.
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

/// Variables that set a parameter. The driver reads some others itself (PGHOST, PGPORT, PGUSER,
/// PGPASSWORD, PGDATABASE, PGAPPNAME, PGOPTIONS, PGPASSFILE, and the files of TLS). The rest have
/// no effect (PGDATESTYLE, PGTZ, PGGEQO).
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

/// The hosts with their ports.
fn hosts(values: &BTreeMap<String, String>) -> Result<Vec<Host>, String> {
    let list = |name: &str| {
        values.get(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>())
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    if let (Some(names), Some(addresses)) = (&names, &addresses) {
        if names.len() != addresses.len() {
            return Err(format!(
                "{} host names do not match {} hostaddr values",
                names.len(),
                addresses.len()
            ));
        }
        if values.get("sslmode").is_some_and(|mode| mode == "verify-full") && names != addresses {
            return Err("hostaddr: the driver verifies the name that it dials: leave it out with \
                        sslmode=verify-full"
                .to_owned());
        }
    }
    for address in addresses.iter().flatten().filter(|address| !address.is_empty()) {
        address.parse::<std::net::IpAddr>().map_err(|_| "hostaddr must be an IP address")?;
    }
    if names.iter().flatten().any(|name| name.starts_with('@')) {
        return Err("host: the driver does not support abstract sockets".to_owned());
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

/// Translates modes that mean something else to the driver than to libpq.
fn tls(values: &mut BTreeMap<String, String>) -> Result<(), String> {
    const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
    let mode = values.get("sslmode").cloned();
    if mode.as_deref() == Some("allow") {
        return Err(
            "sslmode=allow is not supported: the driver would never use TLS; prefer uses it \
                    if the server can"
                .to_owned(),
        );
    }
    if mode.as_ref().is_some_and(|mode| !MODES.contains(&mode.as_str())) {
        return Err(format!("sslmode must be one of {}", MODES.join(", ")));
    }
    match (values.get("sslrootcert").map(String::as_str), mode.as_deref()) {
        (Some("system"), None | Some("verify-full")) => {
            values.remove("sslrootcert");
            values.insert("sslmode".to_owned(), "verify-full".to_owned());
        }
        (Some("system"), Some(_)) => {
            return Err("sslrootcert=system requires sslmode=verify-full".to_owned());
        }
        (Some(_), Some("require")) => {
            values.insert("sslmode".to_owned(), "verify-ca".to_owned());
        }
        _ => {}
    }
    Ok(())
}

/// Parses settings such as `-c a=b -cc=d --e=f` by PostgreSQL's rules. They are applied by a
/// statement, because poolers refuse them at the start of a session.
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
            _ => {
                return Err("options: only -c NAME=VALUE and --NAME=VALUE are supported".to_owned());
            }
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
        return Err(
            "options: the name of a setting may only have letters, digits, _ and .".to_owned()
        );
    }
    let reserved =
        RELIED_ON.iter().map(|(name, _)| *name).chain(["statement_timeout", "transaction_timeout"]);
    match reserved.into_iter().find(|reserved| reserved.eq_ignore_ascii_case(name)) {
        Some(reserved) => Err(format!("options: {reserved} is set by Outrider")),
        None => Ok(name.to_owned()),
    }
}

/// Escapes a value for the query of a URL.
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

/// Masks the passwords and keys of a `database.url`, for a terminal or a log.
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
        return given.values.iter().map(shown).collect::<Vec<_>>().join(" ");
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
