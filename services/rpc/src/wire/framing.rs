//! Tracks the boundaries of gRPC messages in a stream of bytes.

use bytes::Buf;

/// Length of the prefix of a message: a compression flag and four bytes of length.
const PREFIX_BYTES: usize = 5;

/// The position within a stream of messages.
#[derive(Debug, Default, Clone)]
pub struct MessageFraming {
    prefix: [u8; PREFIX_BYTES],
    /// Number of bytes of the prefix that have passed.
    begun: usize,
    /// Number of bytes of the message that are still missing.
    left: usize,
}

impl MessageFraming {
    /// Whether the position is between two messages.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.begun == 0 && self.left == 0
    }

    /// Returns the number of bytes of the current message that have passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        if self.left == 0 { self.begun } else { PREFIX_BYTES + self.length() - self.left }
    }

    /// Returns the number of bytes of the current message that are still missing according to its
    /// prefix, or 0 while the prefix is incomplete.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left
    }

    /// Advances by these bytes.
    pub fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            self.step(&mut data);
        }
    }

    /// Returns how many of these bytes belong to the current message, if it ends within them.
    #[must_use]
    pub fn end_in(&self, data: &[u8]) -> Option<usize> {
        let (mut framing, mut rest) = (self.clone(), data);
        while !rest.is_empty() {
            framing.step(&mut rest);
            if framing.is_between_messages() {
                return Some(data.len() - rest.len());
            }
        }
        None
    }

    /// Consumes the available bytes of one message or one prefix.
    fn step(&mut self, data: &mut &[u8]) {
        if self.left > 0 {
            let passed = self.left.min(data.len());
            self.left -= passed;
            return data.advance(passed);
        }
        let passed = (PREFIX_BYTES - self.begun).min(data.len());
        self.prefix[self.begun..self.begun + passed].copy_from_slice(&data[..passed]);
        self.begun += passed;
        data.advance(passed);
        if self.begun == PREFIX_BYTES {
            (self.begun, self.left) = (0, self.length());
        }
    }

    /// Returns the length in the prefix.
    fn length(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[u8] = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\x01\x02xy";

    #[test]
    fn boundaries_are_found_however_the_bytes_are_cut() {
        for cut in 1..THREE.len() {
            let mut framing = MessageFraming::default();
            let mut passed = 0;
            for chunk in THREE.chunks(cut) {
                framing.pass(chunk);
                passed += chunk.len();
                assert_eq!(
                    framing.is_between_messages(),
                    [8, 13].contains(&passed),
                    "{passed} by {cut}"
                );
                let begun = [13, 8, 0].into_iter().find(|begun| *begun <= passed).unwrap();
                assert_eq!(framing.passed(), passed - begun, "{passed} by {cut}");
            }
            assert_eq!(framing.remaining(), 256);
        }
    }

    #[test]
    fn the_end_of_the_current_message_is_found() {
        for passed in 0..THREE.len() {
            let mut framing = MessageFraming::default();
            framing.pass(&THREE[..passed]);
            let end = [8, 13].into_iter().find(|end| *end > passed).map(|end| end - passed);
            assert_eq!(framing.end_in(&THREE[passed..]), end, "{passed}");
        }
    }
}
