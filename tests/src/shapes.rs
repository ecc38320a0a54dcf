//! Finds texts that look like the output of Rust's Debug, which must not appear in logs, answers,
//! or on a terminal.

/// Marks that no text for people contains.
const MARKS: [&str; 9] = [
    "\\u{",
    "=None",
    "(None",
    "called `Result",
    "called `Option",
    "PoolTimedOut",
    "RecvError",
    "code: '",
    "message: \"",
];
/// Constructors, if they are separate words.
const CONSTRUCTORS: [&str; 3] = ["Some", "Ok", "Err"];

/// Returns the first such line.
#[must_use]
pub fn debug_shape(text: &str) -> Option<&str> {
    text.lines().find(|line| MARKS.iter().any(|mark| line.contains(mark)) || holds_a_value(line))
}

/// Whether a line contains a value as Debug writes it: `Name(value`, or `Name { field: `.
fn holds_a_value(line: &str) -> bool {
    let brackets = line.char_indices().filter(|(_, character)| matches!(character, '(' | '{'));
    brackets.into_iter().any(|(at, bracket)| {
        let (before, after) = (&line[..at], &line[at + 1..]);
        match bracket {
            '(' => {
                let name = last_word(before);
                let is_value = |first: char| {
                    first.is_ascii_uppercase() || first.is_ascii_digit() || "\"([{".contains(first)
                };
                CONSTRUCTORS.contains(&name)
                    || (is_name_of_type(name) && after.starts_with(is_value))
            }
            _ => before.strip_suffix(' ').is_some_and(|before| {
                is_name_of_type(last_word(before)) && begins_with_a_field(after)
            }),
        }
    })
}

fn last_word(text: &str) -> &str {
    text.rsplit(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .next()
        .unwrap_or_default()
}

/// Whether a word looks like the name of a type or variant: a capital followed by a small letter.
fn is_name_of_type(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_uppercase())
        && word.contains(|character: char| character.is_ascii_lowercase())
}

fn begins_with_a_field(text: &str) -> bool {
    let text = text.strip_prefix(' ').unwrap_or(text);
    let name = text.split(':').next().unwrap_or_default();
    name.len() < text.len()
        && !name.is_empty()
        && name.chars().all(|character| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
        })
}

#[cfg(test)]
mod tests {
    use super::debug_shape;

    #[test]
    fn values_as_debug_writes_them_are_found() {
        for text in [
            "roles=[All] public=Some(127.0.0.1:8080)",
            "source=None",
            "cannot: Os { code: 2, kind: NotFound, message: \"No such file\" }",
            "Err(Io(Custom))",
            "transport error: tonic::transport::Error(Transport, x)",
            "no records found for Query { name: Name(\"a.\"), query_type: A }",
            "names DnsName(\"b\")",
            "the text \"\\u{1b}\"",
            "code: 'The service is currently unavailable'",
        ] {
            assert_eq!(debug_shape(&format!("first\n{text}\nlast")), Some(text));
        }
    }

    #[test]
    fn sentences_and_json_are_not() {
        for text in [
            "the port is not allowed (port-of-other-service)",
            "the certificate is of an authority (unknown_ca)",
            "{\"ready\":false,\"waiting_for\":[\"the queue: it is refused\"]}",
            "None of them answers; Some do (Ok)",
            "Usage: outrider publish [OPTIONS] <TYPE> (or a file)",
            "PostgreSQL (17.2) and Redis (7)",
        ] {
            assert_eq!(debug_shape(text), None);
        }
    }
}
