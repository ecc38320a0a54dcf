//! Server streams over REST: server-sent events (WHATWG HTML, "Server-sent events"), one for each
//! message.
//!
//! The `id` of an event is the position in the stream, if messages have one (option
//! `resume_cursor`). Its `event` is the name of the member of the oneof that is set, and its `data`
//! is the message in JSON. `Last-Event-ID` sets the position of the request. An error after the
//! first message is sent as the last event, named `error`, with the JSON of an error.

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use outrider_model::{Error, Reason};
use outrider_rpc::from_status;
use outrider_shares::{Holder, Shares};
use prost_reflect::{DynamicMessage, FieldDescriptor};
use tonic::{Code, Status, body::Body};

use crate::{
    exchange::{
        answer::Refusal,
        call::PREFIX_BYTES,
        fault::{broken_off, fault},
        unsent::CHUNK_BYTES,
    },
    json::write,
    route::{StreamRule, stream_rule::MEDIA_TYPE},
};

/// Converts a message to an event.
fn event(rule: &StreamRule, message: Bytes) -> Result<Bytes, Error> {
    let message = DynamicMessage::decode(rule.output.clone(), message)
        .map_err(fault("the answer does not decode"))?;
    let id = rule.id.as_ref().map(|field| message.get_field(field));
    let id = id.as_ref().and_then(|id| id.as_str()).filter(|id| !id.contains(['\n', '\r', '\0']));
    let name = rule.output.oneofs().flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
    let name = name.into_iter().find(|field| message.has_field(field));
    Ok(written(id, name.as_ref().map(FieldDescriptor::name), None, &write::message(&message)?))
}

/// Refuses a client that does not accept server-sent events (RFC 9110, section 12.5.1). The most
/// specific media range decides.
pub(crate) fn check_accept(headers: &HeaderMap) -> Result<(), Error> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut verdict = None;
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused =
            parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32)));
        let specific = match name.as_str() {
            MEDIA_TYPE => 2,
            "text/*" => 1,
            "*/*" => 0,
            _ => continue,
        };
        if verdict.is_none_or(|(other, _)| specific >= other) {
            verdict = Some((specific, refused));
        }
    }
    let takes = verdict.map_or(!headers.contains_key(ACCEPT), |(_, refused)| !refused);
    if takes {
        Ok(())
    } else {
        Err(Error::new(Reason::NotAcceptable, format!("the method answers with {MEDIA_TYPE} only")))
    }
}

/// Sends the answer of a role as server-sent events. Waits for the first message: until then, an
/// error is an answer of its own.
pub(crate) async fn answer(
    mut events: Events,
    request_id: HeaderValue,
) -> Result<Response<Body>, Error> {
    let first = events.next().await?;
    let rest = stream::unfold(first.is_some().then_some(events), move |events| {
        let request_id = request_id.clone();
        async move {
            let mut events = events?;
            match events.next().await {
                Ok(event) => event.map(|event| (event, Some(events))),
                Err(error) => Some((last(error, &request_id), None)),
            }
        }
    });
    let frames = stream::iter(first).chain(rest).map(|event| Ok::<_, Status>(Frame::data(event)));
    let mut answer = Response::new(Body::new(StreamBody::new(frames)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Tells proxies not to collect the answer before they pass it on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(answer)
}

/// The messages of a role, one after the other.
pub(crate) struct Events {
    rule: StreamRule,
    body: Body,
    read: BytesMut,
    /// Maximum size of one message, in bytes.
    limit: usize,
    /// Room for a message that is assembled here, and the caller whose share of it is used.
    unsent: Shares,
    holder: Holder,
}

impl Events {
    pub(crate) fn new(
        rule: &StreamRule,
        body: Body,
        limit: usize,
        unsent: Shares,
        holder: Holder,
    ) -> Self {
        Self { rule: rule.clone(), body, read: BytesMut::new(), limit, unsent, holder }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        // Held until the event is complete. From then on, the event has room as an answer that is
        // not sent.
        let mut room = None;
        loop {
            if let Some(message) = self.message()? {
                return event(&self.rule, message).map(Some);
            }
            if let Some(missing) =
                self.missing().filter(|missing| room.is_none() && *missing > CHUNK_BYTES)
            {
                room = Some(self.unsent.wait(self.holder, missing).await);
            }
            let broken = || Error::unavailable("a server that is needed broke off its answer");
            let Some(frame) = self.body.frame().await else { return Err(broken()) };
            match frame.map_err(|status| broken_off(&status))?.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return match Status::from_header_map(&trailers) {
                        Some(status) if status.code() == Code::Ok => Ok(None),
                        Some(status) => Err(from_status(&status)),
                        None => Err(broken()),
                    };
                }
            }
        }
    }

    /// Returns how many bytes the current message lacks, once its length is known.
    fn missing(&self) -> Option<usize> {
        let [_, length @ ..] = self.read.first_chunk::<PREFIX_BYTES>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        Some(length.saturating_sub(self.read.len() - PREFIX_BYTES))
    }

    /// Takes a complete message from the data read so far.
    fn message(&mut self) -> Result<Option<Bytes>, Error> {
        let Some([flag, length @ ..]) = self.read.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if *flag != 0 {
            return Err(Error::internal("the answer is compressed"));
        }
        if length > self.limit {
            return Err(Error::new(
                Reason::TooLarge,
                format!("a message of the answer is over {} bytes", self.limit),
            ));
        }
        if self.read.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.read.advance(PREFIX_BYTES);
        Ok(Some(self.read.split_to(length).freeze()))
    }
}

/// Builds the event that says why the stream ends, with the time after which to reconnect if that
/// may help.
fn last(error: Error, request_id: &HeaderValue) -> Bytes {
    if error.reason == Reason::Internal {
        tracing::error!(error = %error.message, "a stream ended because of an internal fault");
    }
    let retry = error.retry_after;
    written(None, Some("error"), retry, &Refusal::from(error).json(request_id))
}

/// Writes one event. Data with several lines, which a payload may have, is written line by line.
fn written(
    id: Option<&str>,
    name: Option<&str>,
    retry: Option<std::time::Duration>,
    data: &[u8],
) -> Bytes {
    let mut event = BytesMut::with_capacity(data.len() + 128);
    let mut line = |field: &str, value: &[u8]| {
        for part in [field.as_bytes(), b": ", value, b"\n"] {
            event.extend_from_slice(part);
        }
    };
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        line("id", id.as_bytes());
    }
    if let Some(name) = name {
        line("event", name.as_bytes());
    }
    if let Some(retry) = retry {
        line("retry", retry.as_millis().to_string().as_bytes());
    }
    // In JSON, line ends are white space, so it does not matter which of them it was.
    data.split(|byte| matches!(byte, b'\n' | b'\r')).for_each(|part| line("data", part));
    event.extend_from_slice(b"\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_lines() {
        let text = |id, name, data: &str| {
            String::from_utf8(written(id, name, None, data.as_bytes()).to_vec()).unwrap()
        };
        assert_eq!(text(Some("c"), Some("event"), "{}"), "id: c\nevent: event\ndata: {}\n\n");
        assert_eq!(text(None, None, "{\r\n1}\n"), "data: {\ndata: \ndata: 1}\ndata: \n\n");
        let error = Error::unavailable("later");
        let event = last(error, &HeaderValue::from_static("r"));
        let event = std::str::from_utf8(&event).unwrap();
        assert!(
            event.starts_with("event: error\nretry: 1000\ndata: {\"error\":{\"code\":503,"),
            "{event}"
        );
        assert!(event.ends_with("\"request_id\":\"r\"}}\n\n"), "{event}");
    }

    #[test]
    fn clients_that_refuse_events_get_an_error() {
        let takes = |accept: &[&'static str]| {
            let values = accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value)));
            check_accept(&HeaderMap::from_iter(values)).is_ok()
        };
        for accept in [
            &[][..],
            &["text/event-stream"],
            &["*/*"],
            &["text/*;q=0.1"],
            &["application/json, */*;q=0.5"],
        ] {
            assert!(takes(accept), "{accept:?}");
        }
        for accept in
            ["application/json", "", "text/html", "text/event-stream;q=0, */*", "*/*, text/*;q=0.0"]
        {
            assert!(!takes(&[accept]), "{accept}");
        }
    }
}
