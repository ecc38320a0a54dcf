//! The texts of commands that fail: the reason, in words, once.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use crate::support::{failed, outrider};

#[test]
fn a_server_that_is_not_reached_is_told_with_the_reason() {
    let home = tempfile::tempdir().unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let secured = format!("https://{}", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in plain.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 16]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    // The label is too long, so no name server is asked.
    let unknown = format!("http://{}:1", "a".repeat(64));
    for (server, reason) in [
        ("http://127.0.0.1:1", "connection refused\n"),
        (unknown.as_str(), "the name does not resolve ("),
        (
            secured.as_str(),
            "the server does not speak TLS on this port; is the URL meant to be http:// ?\n",
        ),
    ] {
        let list = ["projects", "list", "--key", "k", "--server", server];
        let (code, errors) = failed(outrider(home.path(), &list).output().unwrap());
        assert_eq!(code, 3, "{errors}");
        let told = format!("the server is not reachable: {server}: {reason}");
        assert!(errors.contains(&told), "{told} is not in {errors}");
    }
}

#[test]
fn a_file_that_is_of_no_use_is_told_with_the_reason_once() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::write(home.join("empty.pem"), "").unwrap();
    std::fs::write(home.join("cut.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    let serve = |more: &[&str]| {
        let common = [
            "serve",
            "--role",
            "gateway",
            "--set",
            "gateway.listen=127.0.0.1:0",
            "--set",
            "operations.listen=",
        ];
        failed(outrider(home, &[&common[..], more].concat()).output().unwrap())
    };
    let certificate = |file: &str| format!("gateway.tls_certificate_file={file}");
    for (file, reason) in [
        ("absent.pem", "cannot read absent.pem: No such file or directory"),
        ("empty.pem", "empty.pem holds no certificate in PEM: no section of that kind is in it"),
        (
            "cut.pem",
            "cut.pem holds no certificate in PEM: a section has no END line: the file is cut off",
        ),
    ] {
        let (_, errors) = serve(&[
            "--set",
            &certificate(file),
            "--set",
            "gateway.tls_private_key_file=empty.pem",
        ]);
        assert_eq!(errors.matches(reason).count(), 1, "{reason} is not there once: {errors}");
        assert!(errors.matches("No such file").count() <= 1, "{errors}");
    }
    let (code, errors) =
        failed(outrider(home, &["config", "check", "--config", "absent.toml"]).output().unwrap());
    assert!(code == 1 && errors.matches("No such file or directory").count() == 1, "{errors}");
}

/// As in `outrider demo 2>&1 | head -1`: a command goes on, and its exit code stays the same.
#[test]
fn output_that_nobody_reads_ends_no_command() {
    let home = tempfile::tempdir().unwrap();
    let unread = || std::io::pipe().unwrap().1;
    let code = |arguments: &[&str]| {
        let mut command = outrider(home.path(), arguments);
        command.stdout(unread()).stderr(unread()).status().unwrap().code()
    };
    assert_eq!(code(&["demo"]), Some(0));
    assert_eq!(code(&["bootstrap", "--set", "log.level=none"]), Some(1), "an error is reported");
}
