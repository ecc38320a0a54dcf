//! The request of a client of the egress: an accepted request is one plain CONNECT to exactly the
//! destination that it names.

use std::{sync::LazyLock, time::Duration};

use outrider_egress::{
    Options,
    fuzzed::{Judged, judge},
};
use outrider_model::address::{self, Policy};
use tokio::io::{AsyncWriteExt, duplex};

use crate::{http1, input::Input, runtime};

static OPTIONS: LazyLock<Options> =
    LazyLock::new(|| Options { max_head_bytes: 2_048, ..Options::default() });

/// Takes the bytes of a client.
pub fn run(data: &[u8]) {
    let input = Input::of(data);
    let pieces: Vec<Vec<u8>> = input.pieces().map(<[u8]>::to_vec).collect();
    let (in_pieces, _) = judged(pieces);
    let (whole, head) = judged(vec![input.bytes.clone()]);
    // Bytes after the head are seen only if they arrive with it.
    let followed = matches!(&whole, Judged::BadHead(text) if text.contains("bytes follow"));
    if !followed {
        assert_eq!(in_pieces, whole, "in pieces and whole");
    }
    let Judged::Target(host, port) = whole else { return };
    plain(&head, &host, port);
    if let Ok(address::Judged::Name(name)) = Policy::default().judge(&host, port) {
        assert_eq!(name.as_str(), host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase());
    }
}

fn judged(pieces: Vec<Vec<u8>>) -> (Judged, Vec<u8>) {
    runtime::run(Duration::from_secs(60), async {
        let (mut near, far) = duplex(64 * 1024);
        let writing = async {
            for piece in pieces {
                // A refused connection is not read any further.
                if near.write_all(&piece).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let _ = near.shutdown().await;
        };
        let (judged, ()) = tokio::join!(judge(far, &OPTIONS), writing);
        judged
    })
}

/// Asserts that the head says what was understood, and nothing else.
fn plain(head: &[u8], host: &str, port: u16) {
    let requests =
        http1::requests(head).unwrap_or_else(|why| panic!("it was taken, although {why}"));
    let [request] = requests.as_slice() else { panic!("{} requests", requests.len()) };
    assert_eq!((request.method.as_str(), request.version.as_str()), ("CONNECT", "HTTP/1.1"));
    let shown =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    assert_eq!(request.target, shown);
    let hosts: Vec<_> = request.values("host").collect();
    assert!(hosts.len() == 1 && hosts[0].eq_ignore_ascii_case(shown.as_bytes()));
    assert!(
        request.body.is_empty()
            && request
                .values("content-length")
                .chain(request.values("transfer-encoding"))
                .next()
                .is_none()
    );
}
