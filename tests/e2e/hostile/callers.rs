//! Callers without a key.

use std::{collections::VecDeque, time::Duration};

use anyhow::Result;
use http::Method;
use outrider_tests::client::{Grpc, Rest, exchange};
use rand::RngExt;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{interval, sleep, timeout},
};

use super::foe::Foe;
use crate::malformed;

/// How long a dripping connection is kept.
const DRIPPING: Duration = Duration::from_secs(20);

/// Opens more silent connections than a listener accepts. The oldest makes room for a new one.
pub async fn idle_connections(foe: Foe) -> Result<()> {
    let listeners = foe.listeners();
    foe.clone()
        .at_once(listeners.len(), move |foe, number| {
            let address = listeners[number].clone();
            // The public listener has 10,000 places, and operations listeners have 256.
            let most = if number == 0 { foe.of(10_500, 500) } else { foe.of(1_100, 300) };
            async move {
                let mut open = VecDeque::new();
                let mut pace =
                    interval(foe.of(Duration::from_millis(1), Duration::from_millis(20)));
                loop {
                    pace.tick().await;
                    // A full listener may refuse.
                    if let Ok(stream) = TcpStream::connect(&address).await {
                        open.push_back(stream);
                        foe.hit();
                    }
                    if open.len() > most {
                        open.pop_front();
                    }
                }
            }
        })
        .await
}

/// Sends heads byte by byte, on every listener.
pub async fn slow_heads(foe: Foe) -> Result<()> {
    const HEAD: &[u8] =
        b"POST /v1/projects/x/events HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer x\r\nx-a: b";
    let listeners = foe.listeners();
    foe.clone()
        .at_once(foe.of(400, 50), move |foe, number| {
            let address = listeners[number % listeners.len()].clone();
            async move {
                loop {
                    if let Ok(mut stream) = TcpStream::connect(&address).await {
                        foe.hit();
                        let drip = async {
                            for byte in HEAD {
                                stream.write_all(&[*byte]).await?;
                                sleep(Duration::from_millis(300)).await;
                            }
                            std::io::Result::Ok(())
                        };
                        // The server may close it earlier.
                        let _ = timeout(DRIPPING, drip).await;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        })
        .await
}

/// Returns a well-formed key that does not exist.
fn invented() -> String {
    const DIGITS: &[u8] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut random = rand::rng();
    let mut digits = |count: usize| {
        (0..count)
            .map(|_| char::from(DIGITS[random.random_range(0..DIGITS.len())]))
            .collect::<String>()
    };
    format!("ork_0{}_{}A", digits(25), digits(42))
}

/// Sends large bodies without a key, with a malformed one, and with invented ones.
pub async fn bodies(foe: Foe) -> Result<()> {
    foe.callers(
        foe.of(8, 1),
        foe.of(Duration::from_millis(10), Duration::from_millis(200)),
        |foe, number| async move {
            let authorization = match number % 3 {
                0 => String::new(),
                1 => "Authorization: Bearer nonsense\r\n".to_owned(),
                _ => format!("Authorization: Bearer {}\r\n", invented()),
            };
            let head = format!(
                "POST /v1/projects/x/events:batch HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\
                {authorization}\
             Content-Type: application/json\r\nContent-Length: 5800000\r\n\r\n"
            );
            let body = std::iter::repeat_n(vec![b'{'; 58_000], 100);
            exchange(&foe.address(), std::iter::once(head.into_bytes()).chain(body)).await.map(drop)
        },
    )
    .await
}

/// Sends invented keys on lasting connections, over REST and gRPC.
pub async fn invented_keys(foe: Foe) -> Result<()> {
    let rest = Rest::new(&foe.outrider.url(), None);
    foe.callers(
        foe.of(8, 2),
        foe.of(Duration::from_millis(2), Duration::from_millis(50)),
        move |foe, number| {
            let rest = rest.with_token(Some(&invented()));
            async move {
                if number % 20 == 0 {
                    let grpc = Grpc::connect(&foe.outrider.url(), &invented()).await?;
                    // Refused.
                    let _ = grpc
                        .projects()
                        .list_projects(outrider_proto::admin::ListProjectsRequest::default())
                        .await;
                    return Ok(());
                }
                rest.send(Method::POST, "/v1/projects/x/events", "{}").await.map(drop)
            }
        },
    )
    .await
}

/// Sends malformed requests and arbitrary bytes, on every surface.
pub async fn malformed(foe: Foe) -> Result<()> {
    let target = malformed::Target {
        public: foe.address(),
        roles: Vec::new(),
        operations: foe.outrider.operations()[0].clone(),
        project: "prj_01h455vb4pex5vsknk084sn02q".to_owned(),
        token: None,
    };
    foe.callers(
        foe.of(16, 2),
        foe.of(Duration::from_millis(5), Duration::from_millis(100)),
        move |_, number| {
            let mut target = target.clone();
            async move {
                let token = invented();
                target.token = (number % 2 == 0).then_some(token);
                // The tests of malformed requests judge the answers.
                let _ = timeout(Duration::from_secs(5), malformed::one(number, &target)).await;
                Ok(())
            }
        },
    )
    .await
}

/// Stalls, drips or breaks TLS handshakes. This needs TLS on the public port.
pub async fn handshakes(foe: Foe) -> Result<()> {
    const HELLO: &[u8] =
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03................................";
    foe.at_once(foe.of(400, 50), |foe, number| async move {
        loop {
            let mut stream = TcpStream::connect(foe.address()).await?;
            foe.hit();
            let work = async {
                match number % 4 {
                    0 => {}
                    1 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?,
                    2 => stream.write_all(HELLO).await?,
                    _ => {
                        for byte in HELLO {
                            stream.write_all(&[*byte]).await?;
                            sleep(Duration::from_millis(200)).await;
                        }
                    }
                }
                sleep(DRIPPING).await;
                std::io::Result::Ok(())
            };
            // The server may close it earlier.
            let _ = timeout(DRIPPING, work).await;
        }
    })
    .await
}
