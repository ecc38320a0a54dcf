//! Where a stream of gRPC messages is cut into frames.

use bytes::Buf;

/// A flag for compression, and the length in four bytes.
const PREFIX_BYTES: usize = 5;

/// How far the message under way has come.
#[derive(Debug, Default, Clone)]
pub struct Place {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that passed.
    begun: usize,
    /// Bytes of the message that are to come.
    left: usize,
}

impl Place {
    /// Whether no message is under way.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.begun == 0 && self.left == 0
    }

    /// Bytes of the message under way that have passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        if self.left == 0 { self.begun } else { PREFIX_BYTES + self.length() - self.left }
    }

    /// Bytes of the message under way that are to come, as its prefix announces; 0 while that is
    /// not whole.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.left
    }

    /// These bytes pass.
    pub fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            self.step(&mut data);
        }
    }

    /// How many of these bytes are of the message under way, if it ends with them.
    #[must_use]
    pub fn end_in(&self, data: &[u8]) -> Option<usize> {
        let (mut place, mut rest) = (self.clone(), data);
        while !rest.is_empty() {
            place.step(&mut rest);
            if place.is_between_messages() {
                return Some(data.len() - rest.len());
            }
        }
        None
    }

    /// Takes of a message, or of a prefix, what there is of it.
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

    /// What the prefix announces.
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
    fn places_between_messages_are_known_however_they_are_cut() {
        for cut in 1..THREE.len() {
            let mut place = Place::default();
            let mut passed = 0;
            for chunk in THREE.chunks(cut) {
                place.pass(chunk);
                passed += chunk.len();
                assert_eq!(
                    place.is_between_messages(),
                    [8, 13].contains(&passed),
                    "{passed} by {cut}"
                );
                let begun = [13, 8, 0].into_iter().find(|begun| *begun <= passed).unwrap();
                assert_eq!(place.passed(), passed - begun, "{passed} by {cut}");
            }
            assert_eq!(place.awaited(), 256);
        }
    }

    #[test]
    fn the_end_of_the_message_under_way_is_found() {
        for passed in 0..THREE.len() {
            let mut place = Place::default();
            place.pass(&THREE[..passed]);
            let end = [8, 13].into_iter().find(|end| *end > passed).map(|end| end - passed);
            assert_eq!(place.end_in(&THREE[passed..]), end, "{passed}");
        }
    }
}
