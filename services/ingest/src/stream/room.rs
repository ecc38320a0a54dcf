//! The bytes that one stream holds of what all streams of the process may hold together.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Gives back what is held when it is dropped.
pub struct Room {
    shared: Arc<Semaphore>,
    held: usize,
}

impl Room {
    pub fn new(shared: Arc<Semaphore>) -> Self {
        Self { shared, held: 0 }
    }

    /// Waits until there is any. What comes then is read whole: each stream may go beyond by one message.
    pub async fn available(shared: &Semaphore) {
        // It is never closed; the permit only shows that there is one.
        drop(shared.acquire().await);
    }

    /// Takes as much of it as there is; how much that was.
    pub fn take(&mut self, bytes: usize) -> usize {
        let taken = self.shared.forget_permits(bytes);
        self.held += taken;
        taken
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, taken: usize) {
        self.held -= taken;
        self.shared.add_permits(taken);
    }

    /// Gives back all.
    pub fn give_back_all(&mut self) {
        self.give_back(self.held);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back_all();
    }
}
