//! Text from outside on a terminal: what came over the network must not move the cursor, hide a
//! line or change colours.

use std::fmt::Write as _;

/// The text with every control character but line feeds and tabs written as JSON escapes it, and
/// marks that turn the direction of writing too.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(character,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (character.is_control() && !matches!(character, '\n' | '\t')) {
            // Writing to a text cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// The same on one line.
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
