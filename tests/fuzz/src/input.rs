//! Turns the bytes of libFuzzer into input, mostly unchanged.

/// Maximum size of expanded input, in bytes.
const MOST: usize = 256 * 1024;
/// The bytes between two marks are repeated as often as the byte after the second mark says, times
/// [`TIMES`].
const MARK: u8 = 0xff;
const TIMES: usize = 16;
/// Maximum number of pieces. HTTP/2 refuses a flood of small ones, and such floods take long.
const PIECES: usize = 256;

/// Input, and how it arrives.
#[derive(Debug)]
pub struct Input {
    /// The bytes that arrive.
    pub bytes: Vec<u8>,
    /// Bytes of a piece; 0 for everything at once.
    piece: usize,
    /// Other choices of a target.
    pub flags: u8,
}

impl Input {
    /// Makes input of these bytes. The last two say how the others arrive.
    pub fn of(data: &[u8]) -> Self {
        match data {
            [bytes @ .., piece, flags] => {
                Self { bytes: stretched(bytes), piece: usize::from(*piece), flags: *flags }
            }
            bytes => Self { bytes: bytes.to_vec(), piece: 0, flags: 0 },
        }
    }

    /// Returns the bytes in their pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let size = if self.piece == 0 { self.bytes.len() } else { self.piece };
        let size = size.max(self.bytes.len().div_ceil(PIECES)).max(1);
        self.bytes.chunks(size)
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & 1 << flag != 0
    }
}

/// Repeats marked parts. Small inputs could not reach limits of kilobytes otherwise.
fn stretched(bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(Marked { before, part, times, after }) = Marked::of(rest) {
        whole.extend_from_slice(before);
        let room = MOST.saturating_sub(whole.len() + after.len());
        for _ in 0..(times * TIMES).min(room / part.len().max(1)) {
            whole.extend_from_slice(part);
        }
        rest = after;
    }
    whole.extend_from_slice(rest);
    whole
}

/// A marked part, and what surrounds it.
struct Marked<'b> {
    before: &'b [u8],
    part: &'b [u8],
    times: usize,
    after: &'b [u8],
}

impl<'b> Marked<'b> {
    /// Finds the first marked part.
    fn of(bytes: &'b [u8]) -> Option<Self> {
        let first = bytes.iter().position(|byte| *byte == MARK)?;
        let length = bytes[first + 1..].iter().position(|byte| *byte == MARK)?;
        let (part, after) = bytes[first + 1..].split_at(length);
        let (times, after) = after[1..].split_first()?;
        Some(Self { before: &bytes[..first], part, times: usize::from(*times), after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_parts_are_repeated_and_the_end_says_how_it_comes() {
        let input = Input::of(b"a\xffbc\xff\x01d\x03\x02");
        assert_eq!(input.bytes, [b"a".as_slice(), &b"bc".repeat(16), b"d"].concat());
        assert!(input.has(1) && !input.has(0));
        assert_eq!(input.pieces().map(<[u8]>::len).max(), Some(3));
        for plain in [b"".as_slice(), b"a", b"ab\xffc\0\0", b"\xffa\xff\0\0"] {
            let input = Input::of(plain);
            assert!(plain.starts_with(&input.bytes), "{plain:?}");
            assert_eq!(input.pieces().collect::<Vec<_>>().concat(), input.bytes);
        }
        assert!(
            Input::of(&[b"\xff".as_slice(), &[7; 3_000], b"\xff\xffx\0\0"].concat()).bytes.len()
                <= MOST
        );
    }
}
