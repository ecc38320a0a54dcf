//! Ranges of indexes, and further conditions of queries.

use outrider_model::{PageRequest, Principal, ProjectId, page::Cursor};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    Select, Value,
    sea_query::{Expr, ExprTrait, SimpleExpr},
};

use super::ids::IdRange;
use crate::configuration::entity::endpoint;

/// Selects a page's rows and one more, which shows that there are more, in the order of the page.
/// It is a range of the index over the columns of `prefix` (equal to these values) and the id.
///
/// The range is a comparison of rows in the order of the whole index, because only this index can
/// serve that. With plain equality, the planner may walk all rows by id and skip those of other
/// projects. It assumes that the wanted rows are spread evenly, which is wrong for a project that
/// has become inactive. The id is compared once more to skip partitions.
pub(crate) fn range<E: EntityTrait>(
    select: Select<E>,
    prefix: &[(E::Column, Value)],
    id: E::Column,
    ids: IdRange,
    page: PageRequest,
) -> Select<E> {
    let select = within(select, prefix, id, ids.of_page(page));
    let order = if matches!(page.from, Some(Cursor::Before(_))) { Order::Asc } else { Order::Desc };
    let select =
        prefix.iter().fold(select, |select, (column, _)| select.order_by(*column, order.clone()));
    select.order_by(id, order).limit(u64::from(page.size) + 1)
}

/// All rows of such a range.
pub(crate) fn within<E: EntityTrait>(
    select: Select<E>,
    prefix: &[(E::Column, Value)],
    id: E::Column,
    ids: IdRange,
) -> Select<E> {
    select.filter(bounds(prefix, id, ids))
}

/// The condition that a row lies in such a range.
fn bounds<C: ColumnTrait>(prefix: &[(C, Value)], id: C, ids: IdRange) -> Condition {
    between(prefix, &[id], [vec![ids.from.into()], vec![ids.until.into()]]).add(ids.condition(id))
}

/// The condition that a row has these values in the columns of `prefix`, and in the columns of
/// `keys` values from `from` on and before `until`.
pub(crate) fn between<C: ColumnTrait>(
    prefix: &[(C, Value)],
    keys: &[C],
    [from, until]: [Vec<Value>; 2],
) -> Condition {
    let columns = || {
        Expr::tuple(
            prefix.iter().map(|(column, _)| column).chain(keys).map(|column| column.into_expr()),
        )
    };
    let values = |keys: Vec<Value>| {
        Expr::tuple(prefix.iter().map(|(_, value)| value.clone()).chain(keys).map(Expr::val))
    };
    Condition::all().add(columns().gte(values(from))).add(columns().lt(values(until)))
}

/// The condition that a row belongs to a project, for a range over something else. Written so that
/// SQLite does not prefer an index on the project to the index of the range.
pub(crate) fn of_project<C: ColumnTrait>(project_id: C, project: ProjectId) -> SimpleExpr {
    project_id.ne(project.0).not()
}

/// For a principal that is bound to an owner, the condition that a row belongs to an endpoint of
/// that owner. Includes deleted endpoints.
pub(crate) fn own_endpoints<C: ColumnTrait>(
    endpoint_id: C,
    principal: &Principal,
    project: ProjectId,
) -> Option<SimpleExpr> {
    let owner = principal.owner.as_deref()?;
    let own = endpoint::Entity::find()
        .select_only()
        .column(endpoint::Column::Id)
        .filter(endpoint::Column::ProjectId.eq(project.0))
        .filter(endpoint::Column::Owner.eq(owner));
    Some(endpoint_id.in_subquery(own.into_query()))
}
