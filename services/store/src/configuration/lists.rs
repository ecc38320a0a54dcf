//! Pages of lists, ordered by id.

use outrider_model::{Page, PageRequest, Result, limits, page::Cursor};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, ModelTrait, QueryFilter, QueryOrder, QuerySelect,
    Select, sea_query::ValueType,
};
use uuid::Uuid;

use crate::connection::error::unavailable;

/// A page of the rows that `select` finds. `column` is the column of the id.
pub(super) async fn page<E>(
    database: &impl ConnectionTrait,
    select: Select<E>,
    column: E::Column,
    request: PageRequest,
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
    let id = |row: &E::Model| <Uuid as ValueType>::try_from(row.get(column)).unwrap_or_default();
    Ok(Page::from_rows(request, rows, id))
}

/// Converts the items of a page, or returns the first error.
pub(super) fn convert<T, U>(page: Page<T>, convert: impl FnMut(T) -> Result<U>) -> Result<Page<U>> {
    let Page { items, next, previous } = page;
    let items = items.into_iter().map(convert).collect::<Result<_>>()?;
    Ok(Page { items, next, previous })
}
