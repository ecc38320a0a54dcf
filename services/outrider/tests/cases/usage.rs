//! Command lines that are incomplete, or that contain something without an effect.

use std::{path::Path, process::Command};

use crate::support::{failed, outrider, succeeded};

#[test]
fn usage_errors_have_their_exit_code() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let bad: [&[&str]; 23] = [
        &["nonsense"],
        &["publish"],
        &["publish", "a.b", "1", "--lines", "-"],
        &["publish", "a.b", "1"],
        &["events", "list", "--key", "k", "--server", "ftp://x"],
        &["events", "list", "--key", "k", "--profile", "absent"],
        &["listen", "0", "--secret", "short"],
        &["keys", "create", "n", "--scopes", "everything"],
        &[
            "publish",
            "a.b",
            "1",
            "--key",
            "k",
            "--project",
            "p",
            "--header",
            "X-A=1",
            "--header",
            "x-a=2",
        ],
        &[
            "publish",
            "a.b",
            "1",
            "--key",
            "k",
            "--project",
            "p",
            "--metadata",
            "a=1",
            "--metadata",
            "a=2",
        ],
        &["projects", "list", "--key", "k", "--project", "p"],
        &["keys", "list", "--key", "k", "--project", "p"],
        &[
            "keys",
            "create",
            "n",
            "--key",
            "k",
            "--scopes",
            "admin",
            "--organization-wide",
            "--project",
            "p",
        ],
        &["events", "list", "--key", "k", "--server", "http://127.0.0.1:1/v1"],
        &["events", "list", "--key", "k", "--server", "http://127.0.0.1:1?x=1"],
        &["migrate", "down", "--steps", "0"],
        &["verify-ledger", "--since", "2026-01-02T00:00:00Z", "--until", "2026-01-01T00:00:00Z"],
        &["verify-ledger", "--since", "2026-01-02T00:00:00Z", "--until", "2026-01-02T00:00:00Z"],
        &["serve", "--role", "all", "--role", "worker"],
        &["serve", "--role", "worker", "--role", "worker"],
        &["dev", "--set", "database.url=sqlite://x.db"],
        &["dev", "--set", "gateway.listen=127.0.0.1:0"],
        &["dev", "--set", "secrets.master_key_file=k"],
    ];
    for arguments in bad {
        let (code, errors) = failed(outrider(home, arguments).output().unwrap());
        assert_eq!(code, 2, "{arguments:?}: {errors}");
        assert!(!errors.is_empty());
    }
    let nobody =
        ["events", "list", "--key", "k", "--project", "p", "--server", "http://127.0.0.1:1"];
    let (code, errors) = failed(outrider(home, &nobody).output().unwrap());
    assert!(code == 3 && errors.contains("not reachable"), "{errors}");
    let closed = "outrider completions zsh | true; test \"${PIPESTATUS[0]}\" = 0";
    let path = format!(
        "{}:/usr/bin:/bin",
        Path::new(env!("CARGO_BIN_EXE_outrider")).parent().unwrap().display()
    );
    assert!(
        Command::new("bash").args(["-c", closed]).env("PATH", path).status().unwrap().success()
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            succeeded(outrider(home, &["completions", shell]).output().unwrap())
                .contains("outrider")
        );
    }
}
