//! Requests of REST: a request that becomes a message is within the limits of the protos, means the
//! same to its role, and can be converted back to JSON.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, request::Parts};
use outrider_gateway::{
    Options,
    fuzzed::{Transcoder, from_json, to_json},
};
use outrider_model::Error;
use outrider_rpc::http_status;
use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use crate::{input::Input, lists, roles, targets::grpc};

static TRANSCODER: LazyLock<Transcoder> = LazyLock::new(Transcoder::new);
static OPTIONS: LazyLock<Options> = LazyLock::new(Options::default);

/// Takes `METHOD TARGET`, header fields, an empty line and a body. Lines end with a line feed.
pub fn run(data: &[u8]) {
    let input = Input::of(data);
    let Some((parts, body)) = request(&input.bytes) else { return };
    match TRANSCODER.request(&parts, &body, &OPTIONS) {
        Ok((path, message)) => taken(path, &message),
        Err(error) => refused(&error),
    }
}

fn request(bytes: &[u8]) -> Option<(Parts, Bytes)> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")?;
    let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target).body(()).ok()?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request
            .headers_mut()
            .append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.trim()).ok()?);
    }
    Some((request.into_parts().0, Bytes::copy_from_slice(&bytes[end + 2..])))
}

fn refused(error: &Error) {
    assert!(http_status(error.reason).is_client_error(), "{error}");
    let bytes = error.message.len()
        + error.violations.iter().map(|one| one.field.len() + one.description.len()).sum::<usize>();
    assert!(bytes < 4_096, "an error of {bytes} bytes");
}

fn taken(path: &str, message: &DynamicMessage) {
    lists::check(message);
    let bytes = message.encode_to_vec();
    let method = roles::method(path).expect("routes lead to public methods");
    let again = (method.decode)(&bytes).expect("the role decodes it");
    let plain = sent(message);
    assert_eq!(
        DynamicMessage::decode(message.descriptor(), again.as_slice()).ok(),
        Some(plain.clone()),
        "to the role it is another"
    );
    grpc::passes(path, &bytes);
    comes_back(plain);
}

/// Written as JSON and read again, the message is the same. Masks are never written, because not
/// all of their paths can be.
fn comes_back(mut message: DynamicMessage) {
    message.clear_field_by_name("update_mask");
    let text = Bytes::from(to_json(&message).expect("it has a JSON form"));
    let shown = String::from_utf8_lossy(&text);
    let read = from_json(&text, &message.descriptor(), &OPTIONS)
        .unwrap_or_else(|error| panic!("{shown} is refused: {error}"));
    assert_eq!(read.as_ref().and_then(Value::as_message).map(sent), Some(message), "{shown}");
}

/// Returns a message in which fields that are absent equal fields with their default.
fn sent(message: &DynamicMessage) -> DynamicMessage {
    DynamicMessage::decode(message.descriptor(), message.encode_to_vec().as_slice())
        .expect("it was encoded by its own type")
}
