//! The texts of `outrider dev`, with commands to copy and try.

use std::{net::SocketAddr, path::Path};

use super::data::Known;

/// Returns the address, the key, and commands for curl, grpcurl and the command line.
pub fn greeting(address: SocketAddr, known: &Known, data: &Path) -> String {
    let Known { project_id: project, token, .. } = known;
    // A server that listens on every address is called on one.
    let address = match address.ip().is_unspecified() {
        true => format!("127.0.0.1:{}", address.port()),
        false => address.to_string(),
    };
    format!(
        r#"Outrider dev: SQLite and the embedded queue, in {data}

gateway       http://{address} (gRPC and REST)
project       {project}
API key       {token}

In another terminal:

  export OUTRIDER_SERVER=http://{address} OUTRIDER_API_KEY={token} OUTRIDER_PROJECT={project}

Receive: the first line prints the endpoint's id and secret, for the other two
  outrider endpoints create --url http://127.0.0.1:9000/
  outrider subscriptions create ep_… 'invoice.*'
  outrider listen 9000 --secret whsec_…

Publish with the command line, curl, or grpcurl
  outrider publish invoice.paid '{{"amount": 42}}'
  curl -s http://{address}/v1/projects/{project}/events -H "Authorization: Bearer {token}" -H 'Content-Type: application/json' -d '{{"event_type": "invoice.paid", "data": {{"amount": 42}}}}'
  grpcurl -plaintext -H 'authorization: Bearer {token}' -d '{{"project_id": "{project}", "event": {{"event_type": "invoice.paid", "payload": "eyJhbW91bnQiOiA0Mn0="}}}}' {address} outrider.ingest.v1.IngestService/PublishEvent

See what became of it
  outrider deliveries list

Ctrl-C ends it; the next start finds everything again.
"#,
        data = data.display()
    )
}
