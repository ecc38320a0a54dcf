//! `outrider health`, as a container engine runs it.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use crate::support::{Running, failed, outrider, succeeded};

#[test]
fn a_server_that_works_is_healthy_and_one_that_ended_is_not() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    succeeded(outrider(home, &["bootstrap", "--json"]).output().unwrap());
    // The port was free a moment ago, and the system gives out other ports first.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let operations = format!("0.0.0.0:{port}");
    let settings = ["--set", "gateway.listen=127.0.0.1:0", "--set", "log.level=info"];
    let mut serve = outrider(home, &[&["serve"], &settings[..]].concat());
    let serving = Running::start_logged({
        serve.env("OUTRIDER_OPERATIONS_LISTEN", &operations);
        serve
    });
    serving.line("serving");
    let health = |arguments: &[&str]| {
        let mut command = outrider(home, &[&["health", "--timeout", "20s"], arguments].concat());
        command.env("OUTRIDER_OPERATIONS_LISTEN", &operations).output().unwrap()
    };
    assert_eq!(succeeded(health(&[])), "ready\n");
    assert_eq!(succeeded(health(&["--live"])), "running\n");
    assert_eq!(succeeded(health(&["--address", &format!("127.0.0.1:{port}")])), "ready\n");
    serving.stop();
    let (code, errors) = failed(health(&[]));
    assert!(code == 1 && errors.contains("/readyz: nothing listens there"), "{code}: {errors}");
}

/// Returns what `outrider health` prints for a server that answers with these bytes. Without bytes,
/// the server is silent until the client leaves.
fn told_of(answer: &'static [u8]) -> (i32, String) {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        assert!(request.starts_with(b"GET /readyz HTTP/1.1\r\n"));
        // The client may leave before it has read everything.
        let _ = stream.write_all(answer);
        if answer.is_empty() {
            let _ = stream.read(&mut [0]);
        }
    });
    let timeout = if answer.is_empty() { "300ms" } else { "20s" };
    let told = failed(
        outrider(home.path(), &["health", "--address", &address, "--timeout", timeout])
            .output()
            .unwrap(),
    );
    server.join().unwrap();
    told
}

#[test]
fn whatever_is_no_yes_is_a_no_and_says_why() {
    let waiting = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 79\r\n\r\n\
                    {\"ready\":false,\"waiting_for\":[\"the database: \\u001b[2Jgone\",\"the \
                    queue: full\"]}";
    let (code, errors) = told_of(waiting);
    let expected = "/readyz was answered 503 Service Unavailable\n  the database: \
        \\u001b[2Jgone\n  the queue: full\n";
    assert!(code == 1 && errors.ends_with(expected), "{code}: {errors}");
    for (answer, why) in [
        (&b""[..], "no answer within 300ms"),
        (b"nonsense\r\n\r\n", "no answer of HTTP"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /healthz\r\nContent-Length: 0\r\n\r\n",
            "was answered 302 Found",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n",
            "the answer breaks off, or is too long",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nready",
            "the answer breaks off, or is too long",
        ),
    ] {
        let (code, errors) = told_of(answer);
        assert!(code == 1 && errors.contains(why), "{code}: {errors}");
    }
}

#[test]
fn a_server_without_an_address_is_a_no() {
    let home = tempfile::tempdir().unwrap();
    for address in ["", "127.0.0.1:0"] {
        let set = format!("operations.listen={address}");
        for arguments in [["--set", &set], ["--address", address]] {
            let (code, errors) = failed(
                outrider(home.path(), &[&["health"], &arguments[..]].concat()).output().unwrap(),
            );
            assert!(code == 1 && errors.contains("give --address"), "{code}: {errors}");
        }
    }
}
