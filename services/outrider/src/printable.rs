//! Makes text from the network safe to print: it must not move the cursor, hide lines or change
//! colors of a terminal.

use std::fmt::Write as _;

/// Escapes control characters (except line feeds and tabs) and marks that change the direction of
/// text, in the form of JSON.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(character,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (character.is_control() && !matches!(character, '\n' | '\t')) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// Escapes line feeds and tabs too, so that the text stays on one line.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_commanded() {
        assert_eq!(printable("a\u{1b}[2J\r\n\tü"), "a\\u001b[2J\\u000d\n\tü");
        assert_eq!(printable("\u{202e}evil\u{9b}"), "\\u202eevil\\u009b");
        assert_eq!(one_line("a\nb"), "a\\nb");
    }
}
