//! Pages of query results.

use outrider_model::{Page, PageRequest, Result, limits, page::Position};

/// Bounds the size of a page.
pub(super) fn clamp<P>(page: PageRequest<P>) -> PageRequest<P> {
    PageRequest { size: page.size.clamp(1, limits::PAGE_SIZE.1), ..page }
}

/// A page of converted rows, or the first error.
pub(super) fn page_of<R, T, P: Position>(
    page: PageRequest<P>,
    rows: Vec<R>,
    convert: impl FnMut(R) -> Result<T>,
    place: impl Fn(&T) -> P,
) -> Result<Page<T, P>> {
    let items: Vec<T> = rows.into_iter().map(convert).collect::<Result<_>>()?;
    Ok(Page::from_rows(page, items, place))
}
