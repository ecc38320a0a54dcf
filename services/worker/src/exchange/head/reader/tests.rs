use proptest::prelude::*;

use super::{super::regular::FIELDS, *};
use crate::{exchange::answer_bounds::AnswerBounds, options::Options};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";

fn reader() -> Reader {
    Reader::new(HeadBounds { interim: 2, bytes: 150, kept: AnswerBounds::new(&Options::default()) })
}

/// The result of an exchange: everything that is passed on, and the status.
#[derive(Debug, PartialEq)]
struct Came {
    result: Result<Vec<u8>, Fault>,
    fields: Option<Vec<(String, String)>>,
    ends: bool,
    status: Option<u16>,
}

fn read(pieces: &[&[u8]]) -> Came {
    let (mut reader, watch) = (reader(), Watch::default());
    let mut came = Came { result: Ok(Vec::new()), fields: None, ends: false, status: None };
    for piece in pieces {
        let passed = match reader.advance(piece, &watch) {
            Ok(_) if came.ends => continue,
            Ok(Read::More) => continue,
            Ok(Read::Same) => piece.to_vec(),
            Ok(Read::Instead(bytes)) => bytes,
            Ok(Read::Rewritten(rewritten, rest)) => {
                came.ends = rewritten.ends;
                came.fields = Some(rewritten.fields);
                [rewritten.head, rest].concat()
            }
            Err(fault) => {
                came.result = Err(fault);
                break;
            }
        };
        if let Ok(all) = &mut came.result {
            all.extend(passed);
        }
    }
    came.status = watch.status();
    came
}

/// Reads a text as a whole, in every two pieces, and byte by byte. All must agree.
fn judge(text: &[u8]) -> Came {
    let whole = read(&[text]);
    for cut in 0..text.len() {
        let (first, second) = text.split_at(cut);
        assert_eq!(read(&[first, second]), whole, "{:?} at {cut}", text.escape_ascii().to_string());
    }
    assert_eq!(read(&text.chunks(1).collect::<Vec<_>>()), whole);
    whole
}

fn faulty(text: &str) -> Option<Fault> {
    judge(text.as_bytes()).result.err()
}

#[test]
fn a_regular_head_goes_on_as_it_came() {
    for text in [
        OK,
        "HTTP/1.1 204\r\n\r\n",
        "HTTP/1.1 500 \u{e9}\r\nX-A:b \r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
    ] {
        let came = judge(text.as_bytes());
        assert_eq!((came.result, came.fields), (Ok(text.as_bytes().to_vec()), None), "{text:?}");
    }
    let (mut reader, watch) = (reader(), Watch::default());
    assert_eq!(reader.advance(OK.as_bytes(), &watch), Ok(Read::Same));
    assert_eq!((reader.held.capacity(), watch.status()), (0, Some(200)), "nothing was copied");
}

#[test]
fn interim_answers_are_counted_and_left_out() {
    for many in 0..=2 {
        let came = judge(format!("{}{OK}body", INTERIM.repeat(many)).as_bytes());
        assert_eq!(came.result, Ok(format!("{OK}body").into_bytes()));
    }
    assert_eq!(faulty(&format!("{}{OK}", INTERIM.repeat(3))), Some(Fault::Interim));
    // Lines may end with a line feed alone, and a reason phrase may be missing.
    assert_eq!(faulty("HTTP/1.1 100\n\nHTTP/1.1 100\n\nHTTP/1.1 100\n\n"), Some(Fault::Interim));
    assert_eq!(faulty(&format!("{OK}{}", INTERIM.repeat(9))), None, "a body is no head");
    assert_eq!(
        faulty(&format!("HTTP/1.1 102 A\r\nx: HTTP/1.1 101 B\r\n\r\n{OK}")),
        None,
        "nor is a header"
    );
}

#[test]
fn a_switch_of_protocols_is_a_fault() {
    assert_eq!(
        faulty("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
        Some(Fault::Switched)
    );
    assert_eq!(
        faulty(&format!("{INTERIM}HTTP/1.1 101 Switching Protocols\r\n\r\n")),
        Some(Fault::Switched)
    );
}

#[test]
fn what_is_not_http_is_told_at_once() {
    for text in [
        "SSH-2.0-x",
        "S",
        "HTTP/2 200",
        "HTTP/1.x",
        "HTTP/1.1200",
        "HTTP/1.1 099 A",
        "HTTP/1.1 2x0",
        "HTTP/1.1 2000",
    ] {
        assert_eq!(faulty(text), Some(Fault::NotHttp), "{text}");
    }
    for text in ["HTTP/1.1\r\n", "HTTP/1.1 20\r\n", "HTTP/1.1 2", "HTTP"] {
        let fault = text.ends_with('\n').then_some(Fault::NotHttp);
        let came = judge(text.as_bytes());
        assert_eq!((came.result.err(), came.status), (fault, None), "{text}");
    }
    assert_eq!(faulty(&format!("HTTP/1.1{}", " ".repeat(40))), Some(Fault::NotHttp));
}

#[test]
fn the_status_is_known_when_its_line_has_come() {
    assert_eq!(judge(b"HTTP/1.1 200 OK\r").status, None);
    for text in [
        "HTTP/1.1 299 OK\r\n",
        "HTTP/1.0 299\n",
        "HTTP/1.1 \t 299\tA\r\n",
        "HTTP/1.7 299\r\nx",
        "\r\n\nHTTP/1.1 299 \x01\r\n",
    ] {
        assert_eq!(judge(text.as_bytes()).status, Some(299), "{text:?}");
    }
    assert_eq!(judge(format!("{INTERIM}HTTP/1.1 503 A\r\nx").as_bytes()).status, Some(503));
}

#[test]
fn interim_answers_and_empty_lines_count_towards_the_head() {
    let filled =
        |length: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(length - 24));
    for (before, after) in [(INTERIM, 150 - INTERIM.len()), ("\r\n", 148), ("", 150)] {
        let fits = judge(format!("{before}{}", filled(after)).as_bytes());
        assert_eq!((fits.fields, fits.ends), (None, false));
        let beyond = judge(format!("{before}{}", filled(after + 1)).as_bytes());
        // It ends before its body, with the fields that arrived.
        assert_eq!(
            (beyond.ends, beyond.status, beyond.fields.unwrap().len()),
            (true, Some(200), 1)
        );
    }
    assert_eq!(faulty(&"\r\n".repeat(76)), Some(Fault::Head));
    assert_eq!(
        faulty(&format!("{INTERIM}{}", "\n".repeat(151 - INTERIM.len()))),
        Some(Fault::Head)
    );
    assert_eq!(faulty(&format!("HTTP/1.1 200 {}", "a".repeat(150))), Some(Fault::Head));
}

/// Generates pieces of regular and irregular heads.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"HTTP/1.0  404 \r\n".to_vec()),
        Just(b"HTTP/1.1 100 A\r\n".to_vec()),
        Just(b"content-length: 3\r\n".to_vec()),
        Just(b"Content-Length : 4\n".to_vec()),
        Just(b"transfer-encoding: chunked\r\n".to_vec()),
        Just(b"Transfer-Encoding\x0b: chunked\r\n".to_vec()),
        Just(b" folded\r\n".to_vec()),
        Just(b"no colon\r\n".to_vec()),
        Just(b"x: \0\r\x7f\xff\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..8),
        "[a-zA-Z :\t-]{0,12}\r\n".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn pieces_and_the_whole_agree(mut text in lines(), begins in any::<bool>()) {
        if begins {
            text.splice(0..0, *b"HTTP/1.1 200 OK\r\n");
        }
        judge(&text);
    }

    #[test]
    fn what_is_passed_on_is_a_head_of_strict_http(mut text in lines()) {
        text.splice(0..0, *b"HTTP/1.1 200 OK\r\n");
        text.extend(b"\r\n\r\n");
        let came = judge(&text);
        let passed = came.result.unwrap();
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut strict = httparse::Response::new(&mut fields);
        prop_assert!(strict.parse(&passed).unwrap().is_complete());
        prop_assert_eq!(strict.code, came.status);
        let frames = |name: &str| {
        strict.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count()
    };
        prop_assert!(frames("content-length") + frames("transfer-encoding") <= 1);
    }
}
