//! An operator's work on an installation: creating its first key, asking what the egress permits,
//! and changing that while it runs.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Instant};

use serde_json::Value;

use crate::support::{PATIENCE, Running, failed, outrider, run_with, succeeded};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_egress_tells_what_it_permits_without_connecting() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(
        home.join("o.toml"),
        "[egress]\nallow = [\"10.20.0.0/16:8080\", \"receiver\", \"127.0.0.0/8\"]\ndeny = \
            [\"10.20.9.0/24\", \"*.bad.example\"]\n",
    )
    .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let open = format!("http://{}/x?key=secret", listener.local_addr().unwrap());
    let urls = [
        (open.as_str(), "allowed", "dialling", None, Some("egress.allow[2]: 127.0.0.0/8")),
        (
            "http://10.20.1.1:8080/",
            "allowed",
            "dialling",
            None,
            Some("egress.allow[0]: 10.20.0.0/16:8080"),
        ),
        ("http://10.20.1.1/", "refused", "saving", Some("ipv4-private"), None),
        (
            "http://10.20.9.1:8080/",
            "refused",
            "saving",
            Some("denied"),
            Some("egress.deny[0]: 10.20.9.0/24"),
        ),
        (
            "https://x.bad.example/",
            "refused",
            "saving",
            Some("denied"),
            Some("egress.deny[1]: *.bad.example"),
        ),
        ("http://169.254.169.254/", "refused", "saving", Some("ipv4-metadata"), None),
        ("https://8.8.8.8:22/", "refused", "saving", Some("port-of-other-service"), None),
        ("https://8.8.8.8/", "allowed", "dialling", None, None),
        ("nonsense", "malformed", "saving", None, None),
    ];
    let input: String = urls.iter().map(|(url, ..)| format!("{url}\r\n\n")).collect();
    let check = ["egress", "check", "--config", "o.toml", "--json"];
    let output = run_with(outrider(home, &check), &input);
    let told = lines(&String::from_utf8(output.stdout.clone()).unwrap());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("secret"));
    let (code, errors) = failed(output);
    assert!(code == 4 && errors.contains("6 of 9 may not be reached"), "{errors}");
    assert_eq!(told.len(), urls.len());
    for (told, (url, verdict, at, rule, entry)) in told.iter().zip(urls) {
        assert_eq!((&told["verdict"], &told["at"]), (&verdict.into(), &at.into()), "{url}: {told}");
        assert_eq!((told["rule"].as_str(), told["entry"].as_str()), (rule, entry), "{url}: {told}");
    }
    assert_eq!(told[0]["addresses"][0]["address"], "127.0.0.1");
    assert!(listener.accept().is_err(), "nothing was connected to");

    let text = succeeded(
        outrider(home, &["egress", "check", "--config", "o.toml", "--no-dns", "http://receiver/a"])
            .output()
            .unwrap(),
    );
    assert!(
        text.starts_with("allowed ")
            && text.contains("http://receiver/a")
            && text.contains("egress.allow[1]: receiver"),
        "{text}"
    );
    let (code, _) = failed(outrider(home, &["egress", "check"]).output().unwrap());
    assert_eq!(code, 2);
    let (code, errors) = failed(
        outrider(home, &["egress", "check", "--set", "egress.allow=10.0.0.1/8", "x"])
            .output()
            .unwrap(),
    );
    assert!(
        code == 1
            && errors.contains("egress.allow[0]")
            && errors.contains("did you mean 10.0.0.0/8?"),
        "{errors}"
    );
}

#[test]
fn bootstrap_makes_one_installation_of_any_number_at_once() {
    let mut keys = BTreeSet::new();
    for round in 0..4 {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let start = || outrider(home, &["bootstrap", "--json"]);
        let children: Vec<_> = (0..3)
            .map(|_| {
                let mut command = start();
                command
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let told: Vec<Value> = children
            .into_iter()
            .map(|child| {
                serde_json::from_str(&succeeded(child.wait_with_output().unwrap())).unwrap()
            })
            .collect();
        let made: Vec<_> = told.iter().filter(|told| told["created"] == true).collect();
        let [first] = made.as_slice() else { panic!("round {round}: {told:?}") };
        assert!(first["token"].as_str().unwrap().starts_with("ork_"));
        assert!(
            told.iter().all(|told| told["organization_id"] == first["organization_id"]),
            "{told:?}"
        );
        assert!(
            told.iter()
                .filter(|told| told["created"] == false)
                .all(|told| told.get("token").is_none())
        );
        let data = home.join("outrider-data");
        let key = fs::read_to_string(data.join("master.key")).unwrap();
        assert!(
            key.starts_with('k') && key.find(':') == Some(7) && keys.insert(key),
            "each has an id and bytes of its own"
        );
        assert!(
            fs::read_dir(&data).unwrap().all(|entry| !entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".master-key"))
        );

        let again = outrider(home, &["bootstrap"]).output().unwrap();
        assert!(again.status.success() && again.stdout.is_empty());
        let words = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(words.contains("nothing was created") && words.contains("--force"), "{words}");
        let more = lines(&succeeded(
            outrider(home, &["bootstrap", "--force", "--json"]).output().unwrap(),
        ));
        assert_eq!(more[0]["created"], true);
        assert_ne!(more[0]["organization_id"], first["organization_id"]);
    }
}

#[test]
fn a_bootstrap_that_makes_nothing_makes_no_master_key() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    succeeded(outrider(home, &["bootstrap", "--json"]).output().unwrap());
    let elsewhere = ["bootstrap", "--json", "--set", "secrets.master_key_file=elsewhere.key"];
    let told = lines(&succeeded(outrider(home, &elsewhere).output().unwrap()));
    assert_eq!(told[0]["created"], false);
    assert!(!home.join("elsewhere.key").exists());
}

/// A running `outrider serve` on SQLite with a configuration file, and how to call it.
pub struct Serving<'a> {
    home: &'a Path,
    pub process: Running,
    server: String,
    pub key: String,
    project: String,
}

impl<'a> Serving<'a> {
    pub fn start(home: &'a Path) -> Self {
        let made =
            lines(&succeeded(outrider(home, &["bootstrap", "--json"]).output().unwrap())).remove(0);
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        Self::again(home, text("token"), text("project_id"))
    }

    /// Starts it on a home directory that already has an organization.
    pub fn again(home: &'a Path, key: String, project: String) -> Self {
        let serve = [
            "serve",
            "--config",
            "o.toml",
            "--set",
            "gateway.listen=127.0.0.1:0",
            "--set",
            "operations.listen=",
        ];
        let process = Running::start_logged(outrider(home, &serve));
        let line = process.line("serving");
        let port: String = line
            .split("127.0.0.1:")
            .nth(1)
            .unwrap()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        Self { home, process, server: format!("http://127.0.0.1:{port}"), key, project }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = outrider(self.home, &[arguments, &["--json"]].concat());
        command
            .env("OUTRIDER_SERVER", &self.server)
            .env("OUTRIDER_API_KEY", &self.key)
            .env("OUTRIDER_PROJECT", &self.project);
        command
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&succeeded(self.command(arguments).output().unwrap())).unwrap()
    }

    /// Publishes an event, and returns the outcome of its first attempt.
    fn attempt(&self) -> String {
        let event = self.json(&["publish", "a.b", "1"])["event_id"].as_str().unwrap().to_owned();
        let deliveries = self.json(&["deliveries", "list", "--event", &event]);
        let delivery = deliveries["deliveries"][0]["delivery_id"].as_str().unwrap().to_owned();
        let end = Instant::now() + PATIENCE;
        loop {
            let attempts = self.json(&["deliveries", "attempts", &delivery]);
            if let Some(outcome) = attempts["attempts"][0]["outcome"].as_str() {
                return outcome.to_owned();
            }
            assert!(Instant::now() < end, "no attempt was made");
        }
    }
}

#[test]
fn a_server_lives_through_sighup_and_takes_the_new_lists_of_the_egress() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let write = |lists: &str| {
        fs::write(home.join("o.toml"), format!("[log]\nlevel = \"info\"\n[egress]\n{lists}\n"))
            .unwrap()
    };
    write("allow = [\"127.0.0.1\"]");
    let receiver = Running::start(outrider(home, &["listen", "0"]));
    let url = receiver.line("listening").split_whitespace().nth(1).unwrap().to_owned();
    let serving = Serving::start(home);
    let endpoint = serving.json(&["endpoints", "create", "--url", &url]);
    let endpoint = endpoint["endpoint"]["endpoint_id"].as_str().unwrap().to_owned();
    serving.json(&["subscriptions", "create", &endpoint, "a.b"]);
    assert_eq!(serving.attempt(), "ATTEMPT_OUTCOME_SUCCEEDED");

    for _ in 0..5 {
        serving.process.send("-HUP");
        serving.process.line("has not changed");
    }
    assert_eq!(serving.attempt(), "ATTEMPT_OUTCOME_SUCCEEDED");

    write("allow = [\"127.0.0.1/8\"]");
    serving.process.send("-HUP");
    serving.process.line("is invalid");
    assert_eq!(serving.attempt(), "ATTEMPT_OUTCOME_SUCCEEDED", "the old lists stay in force");

    // The worker's idle connection is closed too, so the next request does not use it.
    write("allow = [\"127.0.0.1\"]\ndeny = [\"127.0.0.0/8\"]");
    serving.process.send("-HUP");
    serving.process.line("a new egress policy is in force");
    assert_eq!(serving.attempt(), "ATTEMPT_OUTCOME_ADDRESS_REFUSED");
    let (code, errors) =
        failed(serving.command(&["endpoints", "create", "--url", &url]).output().unwrap());
    assert!(code == 1 && errors.contains("denied"), "{errors}");

    // Without a signal, because the content changed.
    write("allow = [\"127.0.0.1\"]");
    serving.process.line("a new egress policy is in force");
    assert_eq!(serving.attempt(), "ATTEMPT_OUTCOME_SUCCEEDED");
    serving.process.stop();
    receiver.hang_up();
}
