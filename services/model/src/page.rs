//! Pages of a list (AIP-158). A page begins after or before a position, never at an offset.

use uuid::Uuid;

use crate::Timestamp;

/// The sort key of an item in its list. It is unique in the list.
pub trait Position: Copy {
    /// Number of bytes in a page token.
    const BYTES: usize;

    /// Appends the bytes.
    fn write(&self, bytes: &mut Vec<u8>);

    /// Reads the bytes. Returns `None` if the number of bytes is wrong.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// Most lists are sorted by id.
impl Position for Uuid {
    const BYTES: usize = 16;

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

/// The position of an attempt: by number among the attempts of its delivery, otherwise by start
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptPosition {
    /// Number within its delivery.
    pub number: u32,
    /// Start time.
    pub started_at: Timestamp,
    /// Id, which orders attempts that started in the same microsecond.
    pub id: Uuid,
}

impl Position for AttemptPosition {
    const BYTES: usize = 4 + 8 + 16;

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.started_at.0.to_be_bytes());
        self.id.write(bytes);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        let (started_at, id) = rest.split_first_chunk()?;
        Some(Self {
            number: u32::from_be_bytes(*number),
            started_at: Timestamp(i64::from_be_bytes(*started_at)),
            id: Uuid::read(id)?,
        })
    }
}

/// A request for a part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest<P = Uuid> {
    /// Maximum number of items.
    pub size: u32,
    /// Where the page begins. `None` for the beginning of the list.
    pub from: Option<Cursor<P>>,
}

/// A position in a list, and the direction in which to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor<P = Uuid> {
    /// The items after this position.
    After(P),
    /// The items before this position.
    Before(P),
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, P = Uuid> {
    /// In the order of the list, in both directions.
    pub items: Vec<T>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<Cursor<P>>,
    /// Where the previous page begins. `None` on the first page.
    pub previous: Option<Cursor<P>>,
}

impl<T, P: Position> Page<T, P> {
    /// Makes a page from up to `size + 1` items in the direction of the request. The extra item
    /// shows that there are more.
    #[must_use]
    pub fn from_rows(request: PageRequest<P>, mut rows: Vec<T>, place: impl Fn(&T) -> P) -> Self {
        let size = request.size as usize;
        let more = rows.len() > size;
        rows.truncate(size);
        let backwards = matches!(request.from, Some(Cursor::Before(_)));
        if backwards {
            rows.reverse();
        }
        let first = rows.first().map(|row| Cursor::Before(place(row)));
        let last = rows.last().map(|row| Cursor::After(place(row)));
        let (next, previous) = match request.from {
            None => (last.filter(|_| more), None),
            Some(Cursor::After(_)) => (last.filter(|_| more), first),
            Some(Cursor::Before(_)) => (last, first.filter(|_| more)),
        };
        Self { items: rows, next, previous }
    }

    /// Converts the items of a page.
    #[must_use]
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U, P> {
        Page {
            items: self.items.into_iter().map(convert).collect(),
            next: self.next,
            previous: self.previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_and_read() {
        let place =
            AttemptPosition { number: 3, started_at: Timestamp(-7), id: Uuid::from_u128(5) };
        let mut bytes = Vec::new();
        place.write(&mut bytes);
        assert_eq!(
            (bytes.len(), AttemptPosition::read(&bytes)),
            (AttemptPosition::BYTES, Some(place))
        );
        for wrong in [&bytes[1..], &bytes[..3], &[], &[bytes.as_slice(), &[0]].concat()] {
            assert_eq!((AttemptPosition::read(wrong), Uuid::read(wrong)), (None, None));
        }
    }

    #[test]
    fn walks_forth_and_back_over_the_same_pages() {
        let all: Vec<Uuid> = (1..=5).map(Uuid::from_u128).collect();
        let page = |from: Option<Cursor>| {
            let rows: Vec<Uuid> = match from {
                None => all.clone(),
                Some(Cursor::After(id)) => all.iter().copied().filter(|row| *row > id).collect(),
                Some(Cursor::Before(id)) => {
                    all.iter().rev().copied().filter(|row| *row < id).collect()
                }
            };
            Page::from_rows(
                PageRequest { size: 2, from },
                rows.into_iter().take(3).collect(),
                |id| *id,
            )
        };
        let first = page(None);
        let second = page(first.next);
        let third = page(second.next);
        assert_eq!((first.previous, third.next), (None, None));
        assert_eq!(third.items, all[4..]);
        let back = page(third.previous);
        assert_eq!(back.items, second.items);
        let start = page(back.previous);
        assert_eq!((start.items, start.previous), (first.items, None));
    }
}
