//! Parses the two forms of libpq's connection strings, by its rules:
//! `postgres://user:password@host:port,host:port/dbname?name=value` and `name=value name='value'`.
//! An error never contains a value.

use std::str::Chars;

use super::given::Given;

/// The schemes of the URI form.
pub(super) const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// Parses a URI without its scheme.
pub(super) fn uri(rest: &str) -> Result<Given, String> {
    let mut given = Given::default();
    let (main, query) =
        rest.split_once('?').map_or((rest, None), |(main, query)| (main, Some(query)));
    let (authority, dbname) =
        main.split_once('/').map_or((main, ""), |(authority, dbname)| (authority, dbname));
    let hosts = match authority.rsplit_once('@') {
        Some((user, hosts)) => {
            let (user, password) =
                user.split_once(':').map_or((user, ""), |(user, password)| (user, password));
            given.put("user", &decoded(user, "user")?);
            given.put("password", &decoded(password, "password")?);
            hosts
        }
        None => authority,
    };
    hosts_of(hosts, &mut given)?;
    given.put("dbname", &decoded(dbname, "dbname")?);
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').ok_or("a parameter after ? has no =")?;
        if value.contains('=') && !name.starts_with("options") {
            return Err("a parameter after ? has a second =: write it as %3D".to_owned());
        }
        let (name, value) = (decoded(name, "a parameter's name")?, decoded(value, "a parameter")?);
        match (name.as_str(), value.as_str()) {
            ("ssl", "true") => given.put("sslmode", "require"),
            _ => given.put_named(&name, &value),
        }
    }
    Ok(given)
}

/// Splits `host:port,[address]:port` into the lists of two parameters.
fn hosts_of(text: &str, given: &mut Given) -> Result<(), String> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for item in text.split(',') {
        let (host, after) = match item.strip_prefix('[') {
            Some(rest) => {
                rest.split_once(']').ok_or("an address that begins with [ must end with ]")?
            }
            None => item.find(':').map_or((item, ""), |at| item.split_at(at)),
        };
        if item.starts_with('[') && host.is_empty() {
            return Err("an address in [] is empty".to_owned());
        }
        let port = match after.strip_prefix(':') {
            Some(port) => port,
            None if after.is_empty() => "",
            None => return Err("only a port may follow an address in []".to_owned()),
        };
        hosts.push(decoded(host, "host")?);
        ports.push(decoded(port, "port")?);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        given.put("host", &hosts.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        given.put("port", &ports.join(","));
    }
    Ok(())
}

/// Decodes `%XX`.
fn decoded(text: &str, part: &str) -> Result<String, String> {
    let wrong = || format!("{part}: % must be followed by two hexadecimal digits, and not by 00");
    let (mut out, mut bytes) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte == b' ' {
            return Err(format!("{part}: a space must be written as %20"));
        }
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        let value = u8::try_from(high * 16 + low).unwrap_or(0);
        if value == 0 {
            return Err(wrong());
        }
        out.push(value);
    }
    String::from_utf8(out).map_err(|_| format!("{part} is not UTF-8"))
}

/// Parses `name=value` pairs.
pub(super) fn pairs(text: &str) -> Result<Given, String> {
    let (mut given, mut rest) = (Given::default(), text.trim_start());
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or("a parameter has no =")?;
        let name = name.trim_end();
        if name.contains(char::is_whitespace) {
            return Err("a parameter has no =".to_owned());
        }
        let (value, after) = value(after.trim_start())?;
        given.put_named(name, &value);
        rest = after.trim_start();
    }
    Ok(given)
}

/// A value in quotes or up to the next space, and the rest of the text.
fn value(text: &str) -> Result<(String, &str), String> {
    let quoted = text.strip_prefix('\'');
    let mut chars = quoted.unwrap_or(text).chars();
    let mut value = String::new();
    loop {
        match next(&mut chars) {
            None if quoted.is_some() => return Err("a quoted value has no end".to_owned()),
            None => return Ok((value, "")),
            Some((char, true)) => value.push(char),
            Some(('\'', false)) if quoted.is_some() => return Ok((value, chars.as_str())),
            Some((char, false)) if quoted.is_none() && char.is_whitespace() => {
                return Ok((value, chars.as_str()));
            }
            Some((char, false)) => value.push(char),
        }
    }
}

/// The next character, and whether a backslash precedes it.
fn next(chars: &mut Chars<'_>) -> Option<(char, bool)> {
    match chars.next()? {
        '\\' => chars.next().map(|char| (char, true)),
        char => Some((char, false)),
    }
}
