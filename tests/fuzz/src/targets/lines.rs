//! Lines of uploads: found wherever the bytes are cut, and parsed strictly.

use std::sync::LazyLock;

use bytes::Bytes;
use outrider_gateway::{
    Options,
    fuzzed::{from_json, lines},
};
use outrider_proto::DESCRIPTORS;
use prost_reflect::MessageDescriptor;

use crate::{input::Input, lists};

/// Small, so that inputs reach it.
const LIMIT: usize = 512;

static ENTRY: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    DESCRIPTORS.get_message_by_name("outrider.ingest.v1.NewEvent").expect("uploads have events")
});
static OPTIONS: LazyLock<Options> = LazyLock::new(Options::default);

/// Takes the body of an upload.
pub fn run(data: &[u8]) {
    let input = Input::of(data);
    let (read, held) = lines(input.pieces(), LIMIT);
    let longest = input.pieces().map(<[u8]>::len).max().unwrap_or_default();
    assert!(held <= LIMIT + longest, "{held} bytes are held");
    let plain = input.bytes.split(|byte| *byte == b'\n').zip(1..);
    let plain =
        plain.filter(|(line, _)| line.len() > LIMIT || !line.iter().all(u8::is_ascii_whitespace));
    let plain: Vec<_> =
        plain.map(|(line, number)| (number, (line.len() <= LIMIT).then_some(line))).collect();
    let same: Vec<_> = read.iter().map(|(number, text)| (*number, text.as_deref())).collect();
    assert_eq!(same, plain);
    for text in read.iter().filter_map(|(_, text)| text.as_ref()) {
        entry(text);
    }
}

fn entry(text: &Bytes) {
    match from_json(text, &ENTRY, &OPTIONS) {
        Ok(Some(value)) => lists::check(value.as_message().expect("an event is a message")),
        Ok(None) => assert_eq!(text.trim_ascii(), b"null"),
        Err(error) => assert!(error.reason != outrider_model::Reason::Internal, "{error}"),
    }
}
