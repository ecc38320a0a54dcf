//! Pages of a list, by a key that sorts (AIP-158). A page asks for what lies after or before a key, never for an offset.

use uuid::Uuid;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// At most so many.
    pub size: u32,
    /// Where it begins; the list's begin when absent.
    pub from: Option<Cursor>,
}

/// A place in a list and the direction in which to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// What comes after this id in the list's order.
    After(Uuid),
    /// What comes before it.
    Before(Uuid),
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// In the list's order, whichever way it was asked for.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last.
    pub next: Option<Cursor>,
    /// Where the previous page begins; absent on the first.
    pub previous: Option<Cursor>,
}

impl<T> Page<T> {
    /// Makes a page from up to `size + 1` items in the order of the request's direction: the extra one tells that there are more.
    #[must_use]
    pub fn from_rows(request: PageRequest, mut rows: Vec<T>, id: impl Fn(&T) -> Uuid) -> Self {
        let size = request.size as usize;
        let more = rows.len() > size;
        rows.truncate(size);
        let backwards = matches!(request.from, Some(Cursor::Before(_)));
        if backwards {
            rows.reverse();
        }
        let first = rows.first().map(|row| Cursor::Before(id(row)));
        let last = rows.last().map(|row| Cursor::After(id(row)));
        let (next, previous) = match request.from {
            None => (last.filter(|_| more), None),
            Some(Cursor::After(_)) => (last.filter(|_| more), first),
            Some(Cursor::Before(_)) => (last, first.filter(|_| more)),
        };
        Self { items: rows, next, previous }
    }

    /// The same page of other items.
    #[must_use]
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(convert).collect(), next: self.next, previous: self.previous }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_forth_and_back_over_the_same_pages() {
        let all: Vec<Uuid> = (1..=5).map(Uuid::from_u128).collect();
        let page = |from: Option<Cursor>| {
            let rows: Vec<Uuid> = match from {
                None => all.clone(),
                Some(Cursor::After(id)) => all.iter().copied().filter(|row| *row > id).collect(),
                Some(Cursor::Before(id)) => all.iter().rev().copied().filter(|row| *row < id).collect(),
            };
            Page::from_rows(PageRequest { size: 2, from }, rows.into_iter().take(3).collect(), |id| *id)
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
