//! Requests as bytes. Anything but a proper CONNECT soon gets a 4xx or is closed, and opens
//! nothing.

use super::*;

/// Counts the connections that arrive.
async fn sink() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    (address, count)
}

/// Sends bytes and reads until the proxy closes.
async fn exchange(proxy: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    // If the proxy closes early, the rest of the write fails, and a reset ends the read. Both count
    // as closed.
    let _ =
        soon(async { tokio::join!(writer.write_all(request), reader.read_to_end(&mut answer)) })
            .await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn malformed(port: u16) -> Vec<(&'static str, Vec<u8>)> {
    let target = format!("127.0.0.1:{port}");
    let good = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let with = |line: &str| good.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n")).into_bytes();
    let aimed = |at: &str| format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n").into_bytes();
    vec![
        ("bare line feeds", good.replace("\r\n", "\n").into_bytes()),
        ("one bare line feed", good.replacen("\r\n", "\n", 1).into_bytes()),
        ("bare carriage return", with("A: b\rc")),
        ("carriage returns only", good.replace("\r\n", "\r\r").into_bytes()),
        ("obs-fold", with("A: b\r\n c")),
        ("obs-fold of Host", good.replace("Host: ", "Host:\r\n ").into_bytes()),
        ("two Hosts", with(&format!("Host: {target}"))),
        ("two different Hosts", with("Host: example.com:443")),
        ("no Host", format!("CONNECT {target} HTTP/1.1\r\n\r\n").into_bytes()),
        (
            "another Host",
            good.replace(&format!("Host: {target}"), "Host: example.com:443").into_bytes(),
        ),
        ("pipelined CONNECT", good.repeat(2).into_bytes()),
        ("early bytes", format!("{good}hello").into_bytes()),
        (
            "content-length",
            format!("{}hello", String::from_utf8(with("Content-Length: 5")).unwrap()).into_bytes(),
        ),
        ("content-length 0", with("Content-Length: 0")),
        ("chunked", with("Transfer-Encoding: chunked")),
        ("both framings", with("Content-Length: 5\r\nTransfer-Encoding: chunked")),
        ("expect", with("Expect: 100-continue")),
        ("upgrade", with("Connection: upgrade\r\nUpgrade: h2c")),
        ("huge header", with(&format!("A: {}", "b".repeat(200_000)))),
        (
            "huge header without end",
            format!("CONNECT {target} HTTP/1.1\r\nA: {}", "b".repeat(200_000)).into_bytes(),
        ),
        ("too many headers", with("A: b\r\n".repeat(200).trim_end())),
        ("space before the colon", with("A : b")),
        ("header without name", with(": b")),
        ("header without colon", with("A")),
        ("NUL in a header", with("A: \0")),
        ("not ASCII", with("A: \u{e9}")),
        ("HTTP/0.9", b"GET /\r\n".to_vec()),
        ("HTTP/0.9 CONNECT", format!("CONNECT {target}\r\n").into_bytes()),
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0").into_bytes()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        (
            "absolute-form GET",
            format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes(),
        ),
        ("origin-form GET", format!("GET / HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()),
        ("OPTIONS *", format!("OPTIONS * HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()),
        ("lower-case method", good.replace("CONNECT", "connect").into_bytes()),
        (
            "absolute-form CONNECT",
            good.replacen(&target, &format!("http://{target}/"), 1).into_bytes(),
        ),
        ("origin-form CONNECT", good.replacen(&target, "/", 1).into_bytes()),
        ("no port", aimed("127.0.0.1")),
        ("empty port", aimed("127.0.0.1:")),
        ("port 0", aimed("127.0.0.1:0")),
        ("port 65536", aimed("127.0.0.1:65536")),
        ("padded port", aimed(&format!("127.0.0.1:0{port}"))),
        ("signed port", aimed(&format!("127.0.0.1:+{port}"))),
        ("no host", aimed(&format!(":{port}"))),
        ("userinfo", aimed(&format!("user@{target}"))),
        ("percent", aimed(&format!("127.0.0%2e1:{port}"))),
        ("zone", aimed(&format!("[::1%25lo]:{port}"))),
        ("IPv6 without brackets", aimed(&format!("::1:{port}"))),
        ("name in brackets", aimed(&format!("[localhost]:{port}"))),
        ("decimal address", aimed(&format!("2130706433:{port}"))),
        ("two spaces", good.replacen(' ', "  ", 1).into_bytes()),
        ("empty line first", format!("\r\n{good}").into_bytes()),
    ]
}

#[tokio::test]
async fn malformed_requests_get_a_4xx_or_are_closed_and_open_nothing() {
    let (target, arrived) = sink().await;
    let open = egress(development(), Answers::with(&[]));
    let served = Served::new(&open).await;
    for (what, request) in malformed(target.port()) {
        let answer = exchange(served.address, &request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            usize::from(!answer.is_empty()),
            "{what}: {answer}"
        );
    }
    assert_eq!(open.inner.tunnels.available_permits(), open.inner.options.max_tunnels);
    // A proper request reaches the same target, so the zero before is meaningful.
    assert_eq!(arrived.load(Ordering::SeqCst), 0);
    let proper = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    assert!(exchange(served.address, proper.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(arrived.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_cut_off_request_is_closed() {
    let served = Served::new(&egress(development(), Answers::with(&[]))).await;
    for cut in ["", "CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(cut.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let _ = soon(stream.read_to_string(&mut answer)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test]
async fn answers_say_why_in_their_headers() {
    let open = egress(development(), Answers::with(&[]));
    let served = Served::new(&open).await;
    let closed = format!("127.0.0.1:{}", closed_port().await);
    for (target, status, headers) in [
        (
            "10.0.0.1:80",
            "403",
            &["outrider-egress-error: refused", "outrider-egress-rule: ipv4-private"][..],
        ),
        (
            "missing.example.com:80",
            "502",
            &["outrider-egress-error: not-resolved", "outrider-egress-cause: no-such-name"],
        ),
        (
            &closed,
            "502",
            &["outrider-egress-error: connect-failed", "outrider-egress-cause: refused"],
        ),
    ] {
        let answer = exchange(
            served.address,
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        for header in headers.iter().chain(&["connection: close"]) {
            assert!(answer.contains(&format!("{header}\r\n")), "{header}: {answer}");
        }
        assert!(!answer.contains("127.0.0.1"), "addresses are not told: {answer}");
    }
    let get = exchange(served.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(get.starts_with("HTTP/1.1 405 ") && get.contains("allow: CONNECT\r\n"), "{get}");
}

#[tokio::test]
async fn the_answer_that_opens_a_tunnel_has_no_body() {
    let target = echo("127.0.0.1:0").await;
    let served = Served::new(&egress(development(), Answers::with(&[]))).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream
        .write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    check_echo(stream).await;
}

/// Sends a request, waits for the lookup of its name, sends another request, and lets the lookup be
/// answered.
async fn early(answer: Vec<IpAddr>, port: u16) -> String {
    let resolver = Arc::new(Held { answer, ..Held::default() });
    let served = Served::new(&egress(development(), resolver.clone())).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = |host: &str| {
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").into_bytes()
    };
    stream.write_all(&request("held.example.com")).await.unwrap();
    soon(resolver.asked.notified()).await;
    stream.write_all(&request("127.0.0.1")).await.unwrap();
    resolver.go.notify_one();
    let (mut reader, mut writer) = stream.split();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        match soon(reader.read_u8()).await {
            Ok(byte) => heard.push(byte),
            Err(_) => break,
        }
    }
    let _ = writer.shutdown().await;
    let _ = soon(reader.read_to_end(&mut heard)).await;
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn bytes_before_the_answer_are_never_a_second_request() {
    let target = echo("127.0.0.1:0").await;
    // Refused: one answer, then the end, although the bytes that followed were a request that would
    // have been served.
    let heard = early(Vec::new(), target.port()).await;
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 502 "), "{heard}");
    assert!(!heard.contains(" 200 "), "{heard}");
    // Opened: the bytes that followed belong to the tunnel, and the other end returns them.
    let heard = early(vec!["127.0.0.1".parse().unwrap()], target.port()).await;
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 1, "{heard}");
    assert!(heard.contains("\r\n\r\nCONNECT 127.0.0.1:"), "{heard}");
}
