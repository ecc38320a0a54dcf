//! A TCP proxy whose connections can be cut at any moment.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinHandle},
};

/// Passes bytes on to one address; it ends when dropped, with its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<String>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before an address such as `127.0.0.1:8080`.
    pub async fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let target = Arc::new(Mutex::new(target.to_owned()));
        let server = tokio::spawn(serve(listener, Arc::clone(&target), Arc::clone(&connections)));
        Ok(Self { address, target, connections, server })
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Passes new connections on to another address.
    pub fn turn_to(&self, target: &str) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target.to_owned();
    }

    /// Cuts all connections, whatever is under way on them; how many there were.
    pub fn cut(&self) -> usize {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner));
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

async fn serve(listener: TcpListener, target: Arc<Mutex<String>>, connections: Arc<Mutex<Vec<AbortHandle>>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let target = target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connection = tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(target).await else { return };
            pass(client, server).await;
        });
        connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection.abort_handle());
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream) {
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    // An error is a side that is gone, and with it goes the other.
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Receiver, client::Rest};

    #[tokio::test]
    async fn passes_on_and_cuts() {
        let receiver = Receiver::start().await.unwrap();
        let target = receiver.url("").replace("http://", "");
        let proxy = Proxy::start(&target).await.unwrap();
        let client = Rest::new(&proxy.url(), None);
        assert_eq!(client.send(http::Method::POST, "/a", "x").await.unwrap().status, 200);
        assert_eq!((proxy.cut(), proxy.cut()), (1, 0));
        receiver.answer("/b", [crate::Answer::Hang]);
        // Another client: the first may not know yet that its connection is gone.
        let other = Rest::new(&proxy.url(), None);
        let hanging = other.send(http::Method::POST, "/b", "x");
        let cut = async {
            crate::wait_until("the request is there", std::time::Duration::from_secs(20), async || {
                (receiver.peak("/b") > 0).then_some(())
            })
            .await
            .unwrap();
            proxy.cut()
        };
        let (answer, cut) = tokio::join!(hanging, cut);
        assert!(answer.is_err() && cut == 1);
    }
}
