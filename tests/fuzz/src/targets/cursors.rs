//! Short texts that a caller returns or brings along: page tokens, cursors of tails, ids, API keys,
//! secrets and trace contexts. A text that is accepted is written back unchanged.

use outrider_dispatch::fuzzed::reread_cursor;
use outrider_model::{
    EndpointId, ProjectId, Timestamp,
    page::{AttemptPosition, Position},
    secret::{SigningSecret, Token},
};
use outrider_rpc::page::Pager;
use outrider_telemetry::TraceContext;
use uuid::Uuid;

/// Takes a text, whose kind is its first byte.
pub fn run(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match kind % 6 {
        0 => {
            page::<Uuid>(text);
            page::<AttemptPosition>(text);
        }
        1 => cursor(text),
        2 => id(text),
        3 => key(text),
        4 => secret(text),
        _ => trace(text),
    }
}

fn page<P: Position>(text: &str) {
    let pager = Pager::new("List", &["a", ""]);
    match pager.request::<P>(0, text) {
        Ok(request) => {
            assert_eq!(request.from.map(|from| pager.encode(from)).unwrap_or_default(), text)
        }
        Err(error) => assert_eq!(error.reason, outrider_model::Reason::InvalidPageToken),
    }
    let other = Pager::new("List", &["", "a"]);
    assert!(
        text.is_empty()
            || pager.request::<P>(0, text).is_err()
            || other.request::<P>(0, text).is_err(),
        "a token of two lists"
    );
}

fn cursor(text: &str) {
    let project = ProjectId::new(Timestamp(0), 0);
    if let Ok(again) = reread_cursor(text, true, project, 0) {
        assert_eq!(again, text);
        assert!(reread_cursor(text, false, project, 0).is_err(), "of two kinds");
        assert!(
            reread_cursor(text, true, ProjectId::new(Timestamp(0), 1), 0).is_err(),
            "of two projects"
        );
    }
}

fn id(text: &str) {
    if let Ok(id) = text.parse::<EndpointId>() {
        assert_eq!(id.to_string(), text);
    }
}

fn key(text: &str) {
    if let Some(token) = Token::parse(text) {
        assert_eq!(token.reveal(), text);
        assert!(!format!("{token:?}").contains(text));
    }
}

fn secret(text: &str) {
    if let Ok(secret) = SigningSecret::parse(text) {
        let plain = text.strip_prefix("v1,").unwrap_or(text);
        assert_eq!(
            secret.reveal().strip_prefix("whsec_"),
            Some(plain.strip_prefix("whsec_").unwrap_or(plain))
        );
    }
}

fn trace(text: &str) {
    let (parent, state) = text.split_once('\n').unwrap_or((text, ""));
    let Some(context) = TraceContext::parse(parent, state) else { return };
    let (parent, state) = (context.traceparent(), context.tracestate().to_owned());
    assert_eq!(TraceContext::parse(&parent, &state), Some(context.clone()));
    let mut headers = http::HeaderMap::new();
    TraceContext::settle(&mut headers, Some(&context));
    assert_eq!(headers.len(), 1 + usize::from(!state.is_empty()), "what goes on is a header");
    assert_eq!(TraceContext::of_headers(&headers), Some(context));
}
