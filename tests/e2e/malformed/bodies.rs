//! Malformed bodies.

use super::dice::Dice;

/// Returns a gRPC frame.
pub fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[flag], length.to_be_bytes().as_slice(), message].concat()
}

/// Returns the body of a gRPC request with a broken frame or a message that does not decode.
pub fn grpc(dice: &mut Dice) -> Vec<u8> {
    const UNDECODABLE: [&[u8]; 6] = [
        // A length beyond the end; invalid UTF-8; invalid wire types; a group without an end; an
        // endless number; field 0.
        b"\x0a\xff\xff\xff\x7f",
        b"\x0a\x02\xff\xfe",
        b"\x0f\x0e",
        b"\x0b\x0b",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x02\x00",
    ];
    match dice.below(12) {
        0 => {
            let flag = u8::try_from(2 + dice.below(254)).unwrap_or(2);
            frame(flag, &dice.noise(3))
        }
        1 => frame(1, &dice.noise(9)),
        2 => frame(0, b"")[..dice.below(5)].to_vec(),
        3 => {
            let length = 5 + dice.below(20);
            frame(0, &dice.noise(20))[..length].to_vec()
        }
        4 | 5 => frame(0, dice.pick(&UNDECODABLE)),
        6 => [b"\0\xff\xff\xff\xff".as_slice(), &dice.noise(50)].concat(),
        7 => [frame(0, b""), frame(0, b"")].concat(),
        8 => {
            let more = 1 + dice.below(9);
            [frame(0, b"\x0a\x01a"), dice.noise(more)].concat()
        }
        9 => frame(0, &deep(dice.below(300))),
        10 => {
            let length = dice.below(200);
            frame(0, &dice.noise(length))
        }
        _ => {
            let length = dice.below(400);
            dice.noise(length)
        }
    }
}

/// Returns a message that is nested in its second field to this depth.
fn deep(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![0xff], |inner, _| {
        let mut outer = vec![0x12];
        let mut length = inner.len();
        while length >= 0x80 {
            outer.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap_or_default());
        outer.extend(inner);
        outer
    })
}

/// Returns the body of a REST request that is invalid JSON, or JSON that the API does not know.
pub fn json(dice: &mut Dice) -> Vec<u8> {
    const GOOD: [&str; 4] = [
        r#"{"event_type":"invoice.paid","data":{"amount":42},"idempotency_key":"k","headers":{"x-a":"b"}}"#,
        r#"{"http":{"url":"https://example.com/x"},"timeout":"15s","max_in_flight":5,"metadata":{"a":"b"}}"#,
        r#"{"endpoint_id":"ep_01h455vb4pex5vsknk084sn02q","event_types":["a.*"],"name":"n"}"#,
        r#"{"events":[{"event_type":"a","data":1},{"event_type":"b","data_base64":"AA=="}]}"#,
    ];
    match dice.below(10) {
        0 => format!("{}1{}", "[".repeat(300), "]".repeat(300)).into_bytes(),
        1 => format!("{{\"data\":{}1{}}}", "{\"a\":".repeat(400), "}".repeat(400)).into_bytes(),
        2 => br#"{"event_type":"a","event_type":"a","data":1}"#.to_vec(),
        3 => format!(
            "{{\"event_type\":\"a\",\"data\":1,\"{}\":1}}",
            dice.pick(&["unknown", "\\u0000", "", "data_"])
        )
        .into_bytes(),
        4 => dice
            .pick(&[
                r#"{"event_type":1e999}"#,
                r#"{"max_in_flight":-1}"#,
                r#"{"timeout":"99999999999999s"}"#,
            ])
            .into(),
        5 => dice
            .pick(&[
                r#"{"event_type":"a","data":"\ud800"}"#,
                r#"{"name":"\u0000"}"#,
                r#"{"metadata":{"\u0000":"x"}}"#,
            ])
            .into(),
        6 => {
            let length = dice.below(80);
            dice.noise(length)
        }
        _ => {
            let good = dice.pick(&GOOD);
            dice.spoil(good.as_bytes())
        }
    }
}
