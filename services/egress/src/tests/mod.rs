//! Tests over real sockets on loopback, with a resolver that gives any answer.

mod dialing;
mod lists;
mod raw;
mod tunnels;

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use outrider_model::address::Policy;
use outrider_rpc::NoName;
use outrider_settings::{Parsed, Port};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::JoinHandle,
};

use crate::{Egress, Given, NoAddress, Options, Resolve};

/// Longer than any condition of these tests takes on the slowest machine.
const LONG: Duration = Duration::from_secs(20);

async fn soon<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future.into_future()).await.expect("nothing happened for long")
}

/// Gives the answers of a name one after the other, and repeats the last.
#[derive(Default)]
struct Answers {
    names: Mutex<HashMap<&'static str, VecDeque<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Answers {
    fn with(names: &[(&'static str, &[&[&str]])]) -> Arc<Self> {
        let parse = |answers: &[&[&str]]| {
            answers
                .iter()
                .map(|answer| answer.iter().map(|text| text.parse().unwrap()).collect())
                .collect()
        };
        let names = names.iter().map(|(name, answers)| (*name, parse(answers))).collect();
        Arc::new(Self { names: Mutex::new(names), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolve for Answers {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut names = self.names.lock().unwrap();
        let answers = names.get_mut(name).ok_or(NoAddress::Unknown(NoName::Missing))?;
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Ok(next.unwrap_or_default())
    }
}

/// A resolver that may not query any server.
struct Unable;

#[async_trait]
impl Resolve for Unable {
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        Err(NoAddress::Unable("too many open files".into()))
    }
}

/// A resolver that answers on a signal.
#[derive(Default)]
struct Held {
    asked: Notify,
    go: Notify,
    answer: Vec<IpAddr>,
}

#[async_trait]
impl Resolve for Held {
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        self.asked.notify_one();
        self.go.notified().await;
        Ok(self.answer.clone())
    }
}

fn permitting(policy: Policy) -> Options {
    let Policy { allow_loopback, allowed_ports, allow, deny } = policy;
    Options {
        allow_loopback,
        allowed_ports: allowed_ports.into_iter().map(Port).collect(),
        allow: allow.into_iter().map(Parsed).collect(),
        deny: deny.into_iter().map(Parsed).collect(),
        ..Options::default()
    }
}

fn development() -> Options {
    permitting(Policy { allow_loopback: true, ..Policy::default() })
}

fn egress(options: Options, resolver: Arc<dyn Resolve>) -> Egress {
    let given = options.policy().into();
    Egress::with_resolver(options, given, resolver).unwrap()
}

/// Echoes bytes until its client ends.
async fn echo(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let local = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    local
}

/// Returns a port of loopback on which nothing listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A running proxy. `stop` shuts it down, and dropping it cuts it off.
struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn new(egress: &Egress) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let egress = egress.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            egress.serve(listener, shutdown).await
        });
        Self { address, stop: Some(stop), task }
    }

    fn dialer(&self) -> outrider_rpc::RemoteDialer {
        outrider_rpc::RemoteDialer::new(&self.address.to_string()).unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends bytes to `echo`, closes its half of the connection, and checks that all of them return.
async fn check_echo(stream: impl AsyncRead + AsyncWrite) {
    let sent: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut came = Vec::new();
    let write = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let (wrote, read) = soon(async { tokio::join!(write, reader.read_to_end(&mut came)) }).await;
    wrote.unwrap();
    read.unwrap();
    assert!(came == sent, "{} bytes of {}", came.len(), sent.len());
}
