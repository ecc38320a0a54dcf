//! Pages of lists, in the order of ids.

use outrider_model::{Page, PageRequest, Result, limits, page::Cursor};
use sea_orm::{
    ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select, prelude::*,
};
use uuid::Uuid;

use crate::error::unavailable;

/// One page of the rows that `select` finds. `column` is the id's.
pub(crate) async fn page<E>(
    database: &impl ConnectionTrait,
    select: Select<E>,
    column: E::Column,
    request: PageRequest,
    id: impl Fn(&E::Model) -> Uuid,
) -> Result<Page<E::Model>>
where
    E: EntityTrait,
{
    let request = PageRequest { size: request.size.clamp(1, limits::PAGE_SIZE.1), ..request };
    let select = match request.from {
        None => select.order_by_asc(column),
        Some(Cursor::After(after)) => select.filter(column.gt(after)).order_by_asc(column),
        Some(Cursor::Before(before)) => select.filter(column.lt(before)).order_by_desc(column),
    };
    let rows =
        select.limit(u64::from(request.size) + 1).all(database).await.map_err(unavailable)?;
    Ok(Page::from_rows(request, rows, id))
}

/// The same page of converted items, or the first error.
pub(crate) fn convert<T, U>(page: Page<T>, convert: impl FnMut(T) -> Result<U>) -> Result<Page<U>> {
    let Page { items, next, previous } = page;
    let items = items.into_iter().map(convert).collect::<Result<_>>()?;
    Ok(Page { items, next, previous })
}
