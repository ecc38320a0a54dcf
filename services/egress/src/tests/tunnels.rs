//! Tunnels through the running proxy: their bounds and their end.

use outrider_rpc::{DialError, Dialer};

use super::*;

#[tokio::test]
async fn carries_bytes_both_ways_and_half_closed() {
    let open = egress(development(), Answers::with(&[("in.example.com", &[&["127.0.0.1"]])]));
    let served = Served::new(&open).await;
    let target = echo("127.0.0.1:0").await;
    for host in ["127.0.0.1", "localhost", "in.example.com"] {
        check_echo(soon(served.dialer().dial(host, target.port())).await.unwrap()).await;
    }
}

#[tokio::test]
async fn carries_to_ipv6() {
    if TcpListener::bind("[::1]:0").await.is_err() {
        return eprintln!("SKIPPED: this machine has no IPv6 loopback");
    }
    let served = Served::new(&egress(development(), Answers::with(&[]))).await;
    let target = echo("[::1]:0").await;
    check_echo(soon(served.dialer().dial("::1", target.port())).await.unwrap()).await;
    // localhost has two addresses, and only one of them listens.
    check_echo(soon(served.dialer().dial("localhost", target.port())).await.unwrap()).await;
}

#[tokio::test]
async fn many_at_once() {
    let served = Served::new(&egress(development(), Answers::with(&[]))).await;
    let target = echo("127.0.0.1:0").await;
    let dialer = served.dialer();
    futures::future::join_all((0..100).map(|_| async {
        check_echo(soon(dialer.dial("127.0.0.1", target.port())).await.unwrap()).await;
    }))
    .await;
}

#[tokio::test]
async fn tunnels_are_bounded_and_become_free_again() {
    let open = egress(Options { max_tunnels: 1, ..development() }, Answers::with(&[]));
    let served = Served::new(&open).await;
    let target = echo("127.0.0.1:0").await;
    let first = soon(served.dialer().dial("127.0.0.1", target.port())).await.unwrap();
    let second = soon(served.dialer().dial("127.0.0.1", target.port())).await;
    assert_eq!(second.unwrap_err(), DialError::EgressUnavailable);
    drop(first);
    let third = soon(async {
        loop {
            match served.dialer().dial("127.0.0.1", target.port()).await {
                Ok(stream) => return stream,
                Err(error) => assert_eq!(error, DialError::EgressUnavailable),
            }
        }
    })
    .await;
    check_echo(third).await;
}

#[tokio::test]
async fn a_tunnel_no_longer_counts_as_waiting() {
    let served =
        Served::new(&egress(Options { max_waiting: 1, ..development() }, Answers::with(&[]))).await;
    let target = echo("127.0.0.1:0").await;
    let first = soon(served.dialer().dial("127.0.0.1", target.port())).await.unwrap();
    let second = soon(served.dialer().dial("127.0.0.1", target.port())).await.unwrap();
    check_echo(first).await;
    check_echo(second).await;
}

#[tokio::test]
async fn a_failed_dial_leaves_no_tunnel_taken() {
    let open =
        egress(Options { max_tunnels: 1, max_waiting: 8, ..development() }, Answers::with(&[]));
    let served = Served::new(&open).await;
    for _ in 0..20 {
        assert!(matches!(
            soon(served.dialer().dial("10.0.0.1", 80)).await,
            Err(DialError::Refused { .. })
        ));
    }
    soon(async {
        while open.inner.tunnels.available_permits() != 1 || open.inner.waiting.free() != 8 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_that_say_nothing_are_bounded_and_told_to_go() {
    let options =
        Options { max_waiting: 1, head_timeout: Duration::from_millis(200), ..development() };
    let served = Served::new(&egress(options, Answers::with(&[]))).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    silent.write_all(b"CONNECT ").await.unwrap();
    // The one that is accepted first waits. The other is closed without an answer.
    let mut other = TcpStream::connect(served.address).await.unwrap();
    let mut texts = [String::new(), String::new()];
    // A reset also counts as closed.
    let _ = soon(silent.read_to_string(&mut texts[0])).await;
    let _ = soon(other.read_to_string(&mut texts[1])).await;
    texts.sort();
    assert_eq!(texts[0], "");
    assert!(texts[1].starts_with("HTTP/1.1 408 "), "{texts:?}");
}

#[tokio::test]
async fn silent_connections_keep_no_worker_out() {
    let token = outrider_rpc::InternalToken::new("0123456789abcdef0123456789abcdef").ok();
    let options = Options { max_waiting: 8, ..development() };
    let given = Given { token: token.clone(), ..Given::from(options.policy()) };
    let open = Egress::with_resolver(options, given, Answers::with(&[])).unwrap();
    let served = Served::new(&open).await;
    let target = echo("127.0.0.1:0").await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"CONNECT ").await.unwrap();
        silent.push(stream);
    }
    let worker = served.dialer().with_token(token);
    check_echo(
        soon(worker.dial("127.0.0.1", target.port()))
            .await
            .expect("it gets the place of the oldest"),
    )
    .await;
    // Long before the timeout of its head.
    assert_eq!(soon(silent[0].read(&mut [0; 1])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn idle_tunnels_are_closed() {
    let options = Options { idle_timeout: Duration::from_millis(200), ..development() };
    let served = Served::new(&egress(options, Answers::with(&[]))).await;
    let target = echo("127.0.0.1:0").await;
    let mut stream = soon(served.dialer().dial("127.0.0.1", target.port())).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
    assert!(matches!(soon(stream.read(&mut [0; 8])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn shutdown_takes_no_more_and_lets_tunnels_end() {
    let mut served =
        Served::new(&egress(Options { drain: LONG, ..development() }, Answers::with(&[]))).await;
    let target = echo("127.0.0.1:0").await;
    let under_way = soon(served.dialer().dial("127.0.0.1", target.port())).await.unwrap();
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    served.stop();
    soon(async { while TcpStream::connect(served.address).await.is_ok() {} }).await;
    assert!(matches!(soon(silent.read(&mut [0; 8])).await, Ok(0) | Err(_)));
    check_echo(under_way).await;
    soon(&mut served.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn tunnels_that_do_not_end_are_cut_after_the_drain() {
    let mut served = Served::new(&egress(
        Options { drain: Duration::from_millis(100), ..development() },
        Answers::with(&[]),
    ))
    .await;
    let target = echo("127.0.0.1:0").await;
    let mut stuck = soon(served.dialer().dial("127.0.0.1", target.port())).await.unwrap();
    served.stop();
    assert!(matches!(soon(stuck.read(&mut [0; 8])).await, Ok(0) | Err(_)));
    soon(&mut served.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_server_cuts_tunnels() {
    let served = Served::new(&egress(development(), Answers::with(&[]))).await;
    let target = echo("127.0.0.1:0").await;
    let mut stream = soon(served.dialer().dial("127.0.0.1", target.port())).await.unwrap();
    drop(served);
    assert!(matches!(soon(stream.read(&mut [0; 8])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn with_a_token_only_those_who_present_it_are_served() {
    let token = |text: &str| Some(outrider_rpc::InternalToken::new(text).unwrap());
    let own = "0123456789abcdef0123456789abcdef";
    let given = Given { token: token(own), ..Given::from(development().policy()) };
    let open = Egress::with_resolver(development(), given, Answers::with(&[])).unwrap();
    let served = Served::new(&open).await;
    let target = echo("127.0.0.1:0").await;
    let dial = async |token| {
        soon(served.dialer().with_token(token).dial("127.0.0.1", target.port())).await
    };
    assert_eq!(dial(None).await.unwrap_err(), DialError::EgressUnavailable);
    assert_eq!(
        dial(token(&own.replace('0', "1"))).await.unwrap_err(),
        DialError::EgressUnavailable
    );
    check_echo(dial(token(own)).await.unwrap()).await;
}
