//! Random choices that are the same in every run.

/// A generator (xorshift64*), seeded.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Creates a generator with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns the next number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn).unwrap_or_default() % end.max(1)
    }

    /// Returns one of these.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Returns this many bytes.
    pub fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(256)).unwrap_or_default()).collect()
    }

    /// Returns the text with a few bytes changed, or cut off.
    pub fn spoil(&mut self, text: &[u8]) -> Vec<u8> {
        let mut spoilt = text.to_vec();
        if self.below(3) == 0 {
            spoilt.truncate(self.below(text.len()));
        }
        for _ in 0..=self.below(3) {
            let (at, byte) = (self.below(spoilt.len()), self.noise(1)[0]);
            if let Some(old) = spoilt.get_mut(at) {
                *old = byte;
            }
        }
        spoilt
    }
}
