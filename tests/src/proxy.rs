//! A TCP proxy whose connections can be cut or fall silent at any moment, and which spreads new
//! ones over several servers.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinHandle},
};

/// Forwards bytes. Dropping it ends it with its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    targets: Arc<Mutex<VecDeque<String>>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    silence: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy in front of an address such as `127.0.0.1:8080`.
    pub async fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let targets = Arc::new(Mutex::new(VecDeque::from([target.to_owned()])));
        let silence = Arc::<Notify>::default();
        let server = tokio::spawn(serve(
            listener,
            Arc::clone(&targets),
            Arc::clone(&connections),
            Arc::clone(&silence),
        ));
        Ok(Self { address, targets, connections, silence, server })
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Forwards new connections to another address.
    pub fn turn_to(&self, target: &str) {
        self.spread([target]);
    }

    /// Forwards new connections to these addresses in turn, and skips those that do not accept.
    pub fn spread<'a>(&self, targets: impl IntoIterator<Item = &'a str>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) =
            targets.into_iter().map(str::to_owned).collect();
    }

    /// Makes the existing connections silent without closing them, as if a host had disappeared.
    /// New connections work.
    pub fn fall_silent(&self) {
        self.silence.notify_waiters();
    }

    /// Cuts all connections, whatever is in flight on them. Returns how many there were.
    pub fn cut(&self) -> usize {
        let connections =
            std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner));
        let open = connections.iter().filter(|connection| !connection.is_finished());
        open.map(AbortHandle::abort).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        self.cut();
    }
}

async fn serve(
    listener: TcpListener,
    targets: Arc<Mutex<VecDeque<String>>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    silence: Arc<Notify>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let targets = {
            let mut targets = targets.lock().unwrap_or_else(PoisonError::into_inner);
            let most = targets.len().min(1);
            targets.rotate_left(most);
            targets.clone()
        };
        let silenced = Arc::clone(&silence).notified_owned();
        let connection = tokio::spawn(async move {
            for target in targets {
                if let Ok(server) = TcpStream::connect(target).await {
                    return pass(client, server, silenced).await;
                }
            }
        });
        connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection.abort_handle());
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, silenced: impl Future<Output = ()>) {
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    tokio::select! {
        // On an error one side is gone, so the other is closed as well.
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        // Both sides stay open.
        () = silenced => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Receiver, client::Rest};

    #[tokio::test]
    async fn spreads_over_those_who_accept() {
        let (one, other) = (Receiver::start().await.unwrap(), Receiver::start().await.unwrap());
        let nobody = format!("127.0.0.1:{}", crate::ports::free());
        let address = |receiver: &Receiver| receiver.url("").replace("http://", "");
        let proxy = Proxy::start(&nobody).await.unwrap();
        proxy.spread([nobody.as_str(), &address(&one), &address(&other)]);
        for _ in 0..6 {
            // Each has its own client, because connections are spread and not requests.
            let client = Rest::new(&proxy.url(), None);
            assert_eq!(client.send(http::Method::POST, "/a", "x").await.unwrap().status, 200);
        }
        assert!(one.total("/a") > 0 && other.total("/a") > 0);
    }

    #[tokio::test]
    async fn falls_silent_for_those_who_are_there() {
        let receiver = Receiver::start().await.unwrap();
        let proxy = Proxy::start(&receiver.url("").replace("http://", "")).await.unwrap();
        let post = async |client: &Rest| {
            tokio::time::timeout(
                std::time::Duration::from_secs(1),
                client.send(http::Method::POST, "/a", "x"),
            )
            .await
        };
        let client = Rest::new(&proxy.url(), None);
        assert_eq!(post(&client).await.unwrap().unwrap().status, 200);
        proxy.fall_silent();
        assert!(post(&client).await.is_err(), "no answer, and no error");
        assert_eq!(post(&Rest::new(&proxy.url(), None)).await.unwrap().unwrap().status, 200);
    }

    #[tokio::test]
    async fn passes_on_and_cuts() {
        let receiver = Receiver::start().await.unwrap();
        let target = receiver.url("").replace("http://", "");
        let proxy = Proxy::start(&target).await.unwrap();
        let client = Rest::new(&proxy.url(), None);
        assert_eq!(client.send(http::Method::POST, "/a", "x").await.unwrap().status, 200);
        assert_eq!((proxy.cut(), proxy.cut()), (1, 0));
        receiver.answer("/b", [crate::Answer::Hang]);
        // Use another client, because the first may not know yet that its connection is gone.
        let other = Rest::new(&proxy.url(), None);
        let hanging = other.send(http::Method::POST, "/b", "x");
        let cut = async {
            crate::wait_until(
                "the request is there",
                std::time::Duration::from_secs(20),
                async || (receiver.peak("/b") > 0).then_some(()),
            )
            .await
            .unwrap();
            proxy.cut()
        };
        let (answer, cut) = tokio::join!(hanging, cut);
        assert!(answer.is_err() && cut == 1);
    }
}
