//! `outrider egress`: shows what the egress would do, without doing it.

use std::io::{self, BufRead, Read as _};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use outrider_egress::{Egress, Examined, Stopped};
use outrider_model::{
    address::{Basis, Judged, Policy, Refused},
    url::{MalformedUrl, WebhookUrl},
};
use outrider_rpc::DialError;
use serde::Serialize;

use super::configuration::Configuration;
use crate::{client::Failure, config::Config, printable::one_line, roles, stdout};

/// The question.
#[derive(Debug, Args)]
pub struct EgressCommand {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Shows whether endpoints may have these URLs and be reached, and the rule that decides. Looks
    /// up names, and opens no connection.
    Check(Check),
}

/// The URLs to check.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub configuration: Configuration,
    /// URLs of endpoints. With --json and without URLs, reads them from standard input, one per
    /// line.
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// Checks as when an endpoint is saved, without looking up names.
    #[arg(long)]
    pub no_dns: bool,
    /// Prints a line of JSON for each URL.
    #[arg(long)]
    pub json: bool,
}

/// Maximum length of a line of standard input, in bytes.
const LINE: usize = 64 * 1024;

/// Prints each verdict. Fails with exit code 4 if a URL may not be reached.
pub async fn run(options: EgressCommand) -> Result<(), Failure> {
    let Action::Check(check) = options.action;
    if check.urls.is_empty() && !check.json {
        return Err(Failure::Usage(
            "name a URL, or give --json and URLs on standard input, one a line".to_owned(),
        ));
    }
    let judge = Judge::new(&check.configuration.load()?, !check.no_dns)?;
    let mut tally = Tally { json: check.json, ..Tally::default() };
    for url in &check.urls {
        if !tally.tell(&judge.judge(url).await)? {
            return tally.outcome();
        }
    }
    if check.urls.is_empty() {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input).context("cannot read standard input")? {
            let line = line.trim_end_matches(['\r', '\n']);
            if !line.is_empty() && !tally.tell(&judge.judge(line).await)? {
                break;
            }
        }
    }
    tally.outcome()
}

/// Returns the next line up to the maximum length, or `None` at the end.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let most = u64::try_from(LINE).unwrap_or(u64::MAX);
    if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    // The rest of a longer line is not a URL of its own. The first part is refused for its length.
    while line.len() == LINE && line.last() != Some(&b'\n') {
        let mut rest = Vec::new();
        if input.by_ref().take(most).read_until(b'\n', &mut rest)? == 0
            || rest.last() == Some(&b'\n')
        {
            break;
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// Counts the results, and those that are not permitted.
#[derive(Default)]
struct Tally {
    json: bool,
    checked: u64,
    not_allowed: u64,
}

impl Tally {
    /// Prints a result. Returns whether standard output is still open.
    fn tell(&mut self, report: &CheckResult) -> Result<bool> {
        self.checked += 1;
        self.not_allowed += u64::from(report.verdict != "allowed");
        let text = if self.json { serde_json::to_string(report)? + "\n" } else { report.text() };
        stdout::write_while_read(&text)
    }

    fn outcome(&self) -> Result<(), Failure> {
        match self.not_allowed {
            0 => Ok(()),
            some => Err(Failure::Broken(format!("{some} of {} may not be reached", self.checked))),
        }
    }
}

/// The verdict about one URL.
#[derive(Debug, Serialize)]
struct CheckResult {
    /// Without its query, which often contains a secret.
    url: String,
    verdict: &'static str,
    /// The step that decides: `saving` the endpoint, or `dialling`.
    at: &'static str,
    rule: Option<&'static str>,
    /// The entry of the lists that decided.
    entry: Option<String>,
    reason: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    addresses: Vec<AddressReport>,
}

#[derive(Debug, Serialize)]
struct AddressReport {
    address: String,
    verdict: &'static str,
    rule: Option<&'static str>,
    entry: Option<String>,
}

impl CheckResult {
    fn text(&self) -> String {
        let why =
            self.entry.iter().cloned().chain(self.reason.clone()).collect::<Vec<_>>().join(": ");
        let mut text =
            format!("{:<12}  {}  {}\n", self.verdict, one_line(&self.url), one_line(&why));
        for address in &self.addresses {
            let why = address.entry.as_deref().or(address.rule).unwrap_or("built-in rules");
            text.push_str(&format!("{:<12}  {} {}  {why}\n", "", address.address, address.verdict));
        }
        text
    }
}

/// Checks as the configured installation does, with the same code that saves and dials.
struct Judge {
    policy: Policy,
    egress: Option<Egress>,
}

impl Judge {
    fn new(config: &Config, with_dns: bool) -> Result<Self> {
        let egress = with_dns.then(|| roles::examiner(&config.egress)).transpose()?;
        Ok(Self { policy: config.egress.policy(), egress })
    }

    async fn judge(&self, text: &str) -> CheckResult {
        let mut report = CheckResult {
            url: shown(text),
            verdict: "allowed",
            at: "saving",
            rule: None,
            entry: None,
            reason: None,
            host: None,
            port: None,
            addresses: Vec::new(),
        };
        let url = match WebhookUrl::parse(text, &self.policy) {
            Ok(url) => url,
            Err(MalformedUrl::Malformed(problem)) => {
                (report.verdict, report.reason) = ("malformed", Some(problem.to_owned()));
                return report;
            }
            Err(MalformedUrl::Refused(refused) | MalformedUrl::Port { refused, .. }) => {
                self.refuse(&mut report, refused);
                return report;
            }
        };
        (report.host, report.port) = (Some(url.host().to_owned()), Some(url.port()));
        let judged = match &self.egress {
            None => self.policy.judge(url.host(), url.port()).map_err(Stopped::Refused),
            Some(egress) => {
                report.at = "dialling";
                egress
                    .examine(url.host(), url.port())
                    .await
                    .map(|examined| self.addresses(&mut report, examined))
            }
        };
        match judged {
            Ok(judged) if report.verdict == "allowed" => {
                report.entry = self.allowed_by(basis(&judged));
                report.reason = report.entry.is_none().then(|| "the built-in rules".to_owned());
            }
            Ok(_) => {}
            Err(Stopped::Refused(refused)) => self.refuse(&mut report, refused),
            Err(Stopped::NotResolved(why)) => {
                (report.verdict, report.reason) =
                    ("not_resolved", Some(DialError::NotResolved(why).to_string()));
            }
            Err(Stopped::Unable) => {
                (report.verdict, report.reason) =
                    ("unknown", Some("no name server could be asked".to_owned()));
            }
        }
        report
    }

    /// Adds the addresses. A refused one decides about the URL.
    fn addresses(&self, report: &mut CheckResult, examined: Examined) -> Judged {
        for (target, verdict) in examined.addresses {
            let address = target.ip().to_string();
            let told = match verdict {
                Ok(basis) => AddressReport {
                    address,
                    verdict: "allowed",
                    rule: None,
                    entry: self.allowed_by(basis),
                },
                Err(refused) => {
                    if report.verdict == "allowed" {
                        self.refuse(report, refused);
                    }
                    AddressReport {
                        address,
                        verdict: "refused",
                        rule: Some(refused.rule),
                        entry: self.denied_by(refused),
                    }
                }
            };
            report.addresses.push(told);
        }
        examined.judged
    }

    fn refuse(&self, report: &mut CheckResult, refused: Refused) {
        report.verdict = "refused";
        report.rule = Some(refused.rule);
        report.entry = self.denied_by(refused);
        report.reason = Some(refused.to_string());
    }

    fn allowed_by(&self, basis: Basis) -> Option<String> {
        match basis {
            Basis::BuiltIn => None,
            Basis::Allowed(at) => {
                self.policy.allow.get(at).map(|entry| format!("egress.allow[{at}]: {entry}"))
            }
        }
    }

    fn denied_by(&self, refused: Refused) -> Option<String> {
        let at = refused.denied_by?;
        self.policy.deny.get(at).map(|entry| format!("egress.deny[{at}]: {entry}"))
    }
}

fn basis(judged: &Judged) -> Basis {
    match judged {
        Judged::Address(_, basis) => *basis,
        Judged::Name(name) => name.basis(),
    }
}

/// Returns the URL without secrets: without the query, and without a user name and password, which
/// are not permitted.
fn shown(url: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, ""), |(base, _)| (base, "?…"));
    let base: String = base.chars().take(2_048).collect();
    let (scheme, rest) =
        base.split_once("://").map_or(("", base.as_str()), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host =
        authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("…@{host}"));
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_urls_are_not_shown() {
        for (url, expected) in [
            ("https://example.com/a?key=secret&x", "https://example.com/a?…"),
            ("https://me:secret@example.com/a", "https://…@example.com/a"),
            ("https://example.com/@a", "https://example.com/@a"),
            ("secret@example.com", "…@example.com"),
            ("", ""),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn lines_are_bounded_and_a_longer_one_is_one_line() {
        let long =
            format!("https://example.com/{}\nhttps://b.example/\n\nlast", "a".repeat(3 * LINE));
        let mut input = long.as_bytes();
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines[0].len(), LINE);
        assert_eq!(lines[1..], ["https://b.example/\n", "\n", "last"]);
        let exact = "a".repeat(LINE - 1) + "\nb\n";
        let mut input = exact.as_bytes();
        assert_eq!(next_line(&mut input).unwrap().map(|line| line.len()), Some(LINE));
        assert_eq!(next_line(&mut input).unwrap().as_deref(), Some("b\n"));
    }
}
