//! The life of a noun in the database, the same for all: how it is created once for each request
//! id, read, listed, updated and deleted. A change is one transaction under the lock of all changes
//! ([`Transaction`]), and writes one entry to the change feed.
//!
//! The file of each noun implements [`Resource`]: its columns, what a principal reaches, its
//! checks, and its entry in the feed.

use outrider_model::{
    Error, Noun, Page, PageRequest, Principal, ProjectId, Result, Spec, Timestamp, id::Id,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, PrimaryKeyTrait, QueryFilter, Select,
    sea_query::Expr,
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    lists,
    requests::Request,
    transaction::{Transaction, random},
};
use crate::{
    ChangeKind, Store,
    cipher::MasterKeys,
    connection::{
        callers::CallerConnection,
        error::{exists, unavailable},
    },
};

/// A noun, as the store keeps it. Implemented for its spec.
pub(super) trait Resource: Spec {
    /// Its name in errors.
    const WHAT: &'static str;
    /// Its name in the change feed.
    const KIND: ChangeKind;
    /// Its table, and the column of its id.
    type Entity: EntityTrait<PrimaryKey: PrimaryKeyTrait<ValueType = Uuid>>;
    const ID: Column<Self>;
    /// What it is looked for in.
    type Parent: Parent;
    /// A secret that is stored with it, and never read as a part of it.
    type Secret: Send + Sync;

    fn from_row(row: Row<Self>, values: Values<'_>) -> Result<Noun<Self>>;

    /// All columns except those that only the creation or the deletion writes.
    fn to_row(noun: &Noun<Self>, keys: &MasterKeys) -> Result<Columns<Self>>;

    /// The columns of a list, if it leaves some out.
    fn listed(all: Select<Self::Entity>) -> Select<Self::Entity> {
        all
    }

    /// Those in the parent that exist and that the principal reaches. The caller has checked that
    /// the principal reaches the parent.
    fn within_reach(principal: &Principal, parent: Self::Parent) -> Select<Self::Entity>;

    /// Refuses what the principal may not make of a noun that it reaches. Without a noun, it is
    /// deleted.
    fn permit(_principal: &Principal, _after: Option<&Noun<Self>>) -> Result<()> {
        Ok(())
    }

    /// Refuses a noun that cannot be created: an id or name that is taken, a noun that it refers to
    /// and that does not exist, a limit. Changes are serialized, so what is checked stays true
    /// until the transaction ends.
    async fn admit(
        _transaction: &Transaction<'_>,
        _principal: &Principal,
        _noun: &Noun<Self>,
    ) -> Result<()> {
        Ok(())
    }

    /// Writes a new noun with its secret.
    async fn insert(
        transaction: &Transaction<'_>,
        noun: &Noun<Self>,
        _secret: &Self::Secret,
    ) -> Result<()> {
        let row = Self::to_row(noun, transaction.store.master_keys())?;
        insert_row::<Self>(transaction, row).await
    }

    /// Removes its row, or marks it as deleted. Removes what belongs to it.
    async fn remove(transaction: &Transaction<'_>, noun: &Noun<Self>) -> Result<()> {
        let delete = Self::Entity::delete_by_id(noun.id).exec(&transaction.database);
        delete.await.map_err(unavailable).map(drop)
    }

    /// The project under which the change feed announces it.
    fn project(noun: &Noun<Self>) -> Option<ProjectId>;

    /// Its content in the change feed, without secrets.
    fn describe(noun: &Noun<Self>) -> Value;
}

pub(super) type Row<S> = <<S as Resource>::Entity as EntityTrait>::Model;
pub(super) type Columns<S> = <<S as Resource>::Entity as EntityTrait>::ActiveModel;
type Column<S> = <<S as Resource>::Entity as EntityTrait>::Column;

/// What a noun is looked for in: the principal's organization, or a project.
pub(super) trait Parent: Copy + Send + Sync {
    /// Checks that it exists and that the principal reaches it. Errors: `NOT_FOUND`.
    async fn require(self, database: &impl ConnectionTrait, principal: &Principal) -> Result<()>;

    /// For reads in it.
    fn connection<'s>(self, store: &'s Store, principal: &Principal) -> CallerConnection<'s>;

    /// The scope of request ids.
    fn scope(self, principal: &Principal) -> Uuid;
}

/// The principal's organization.
#[derive(Clone, Copy)]
pub(super) struct OwnOrganization;

impl Parent for OwnOrganization {
    async fn require(self, _: &impl ConnectionTrait, _: &Principal) -> Result<()> {
        Ok(())
    }

    fn connection<'s>(self, store: &'s Store, principal: &Principal) -> CallerConnection<'s> {
        store.connection_of(principal)
    }

    fn scope(self, principal: &Principal) -> Uuid {
        principal.project.map_or(principal.organization.0, |project| project.0)
    }
}

/// How to read values that are used as secrets.
#[derive(Clone, Copy)]
pub(super) enum Values<'k> {
    Opened(&'k MasterKeys),
    /// With a mask in the place of each.
    Masked,
}

/// A noun to create.
pub(super) struct New<S: Resource> {
    /// Generated if absent.
    pub id: Option<S::Id>,
    pub fixed: S::Fixed,
    pub spec: S,
    pub secret: S::Secret,
}

/// The outcome of a creation.
pub(super) struct Created<S: Spec> {
    pub noun: Noun<S>,
    /// Whether an earlier request with the same request id created it.
    pub is_repeated: bool,
}

/// Selects the noun with this id.
pub(super) fn by_id<S: Resource>(id: S::Id) -> Expr {
    S::ID.eq(id.into())
}

/// Creates a noun. `content` is everything that the caller asked for: a request id that is repeated
/// with the same content is answered with what it created.
pub(super) async fn create<S: Resource>(
    store: &Store,
    principal: &Principal,
    parent: S::Parent,
    new: New<S>,
    content: &Value,
    request_id: Option<&str>,
) -> Result<Created<S>> {
    let request = Request::new(parent.scope(principal), request_id, S::KIND, content);
    let transaction = Transaction::begin(store, principal).await?;
    let database = &transaction.database;
    parent.require(database, principal).await?;
    let New { id, fixed, spec, secret } = new;
    let id = id.unwrap_or_else(|| S::Id::generate(transaction.now, random()));
    let noun = Noun::new(id, fixed, spec, transaction.now);
    S::permit(principal, Some(&noun))?;
    if let Some(first) = Request::find(request.as_ref(), &transaction).await? {
        let values = Values::Opened(store.master_keys());
        let noun = find(database, principal, parent, by_id::<S>(first.into()), values).await?;
        return Ok(Created { noun, is_repeated: true });
    }
    S::admit(&transaction, principal, &noun).await?;
    insert(&transaction, &noun, &secret).await?;
    Request::remember(request.as_ref(), &transaction, id.into()).await?;
    transaction.commit().await?;
    Ok(Created { noun, is_repeated: false })
}

/// A noun. Errors: `NOT_FOUND`, also for its parent.
pub(super) async fn get<S: Resource>(
    store: &Store,
    principal: &Principal,
    parent: S::Parent,
    which: Expr,
    values: Values<'_>,
) -> Result<Noun<S>> {
    let database = reach(store, principal, parent).await?;
    find(&database, principal, parent, which, values).await
}

/// A page of the nouns in a parent that meet a condition, masked. Errors: `NOT_FOUND` for the
/// parent.
pub(super) async fn list<S: Resource>(
    store: &Store,
    principal: &Principal,
    parent: S::Parent,
    condition: Condition,
    request: PageRequest,
) -> Result<Page<Noun<S>>> {
    let database = reach(store, principal, parent).await?;
    page(&database, principal, parent, condition, request).await
}

/// Changes the spec of a noun. Errors: `NOT_FOUND`, also for its parent; those of
/// [`Resource::permit`].
pub(super) async fn update<S: Resource>(
    store: &Store,
    principal: &Principal,
    parent: S::Parent,
    which: Expr,
    change: impl FnOnce(&mut S) + Send,
) -> Result<Noun<S>> {
    let transaction = Transaction::begin(store, principal).await?;
    let (database, keys) = (&transaction.database, store.master_keys());
    parent.require(database, principal).await?;
    let before: Noun<S> = find(database, principal, parent, which, Values::Opened(keys)).await?;
    let mut after = before.clone();
    change(&mut after.spec);
    S::permit(principal, Some(&after))?;
    if after == before {
        return Ok(before);
    }
    // Two versions never have the same time, however fast they follow each other.
    after.meta.updated_at = transaction.now.max(Timestamp(before.updated_at.0 + 1));
    update_row::<S>(&transaction, S::to_row(&after, keys)?).await?;
    announce(&transaction, Some(&before), Some(&after)).await?;
    transaction.commit().await?;
    Ok(after)
}

/// Deletes a noun and what belongs to it. Errors: `NOT_FOUND`, also for its parent; those of
/// [`Resource::permit`].
pub(super) async fn delete<S: Resource>(
    store: &Store,
    principal: &Principal,
    parent: S::Parent,
    which: Expr,
) -> Result<()> {
    let transaction = Transaction::begin(store, principal).await?;
    parent.require(&transaction.database, principal).await?;
    // Values that cannot be decrypted are deleted, too.
    let noun: Noun<S> =
        find(&transaction.database, principal, parent, which, Values::Masked).await?;
    S::permit(principal, None)?;
    remove(&transaction, &noun).await?;
    transaction.commit().await
}

/// For reads in a parent. Errors: `NOT_FOUND` if the principal does not reach it.
pub(super) async fn reach<'s, P: Parent>(
    store: &'s Store,
    principal: &Principal,
    parent: P,
) -> Result<CallerConnection<'s>> {
    parent.require(&store.connection_of(principal), principal).await?;
    Ok(parent.connection(store, principal))
}

/// The noun, if it exists and the principal reaches it. The caller has checked that the principal
/// reaches the parent.
pub(super) async fn find<S: Resource>(
    database: &impl ConnectionTrait,
    principal: &Principal,
    parent: S::Parent,
    which: Expr,
    values: Values<'_>,
) -> Result<Noun<S>> {
    let row = S::within_reach(principal, parent)
        .filter(which)
        .one(database)
        .await
        .map_err(unavailable)?;
    S::from_row(row.ok_or_else(|| Error::not_found(S::WHAT))?, values)
}

/// The row with this id, for any caller, also if the noun was deleted.
pub(super) async fn row_of_anybody<S: Resource>(
    database: &impl ConnectionTrait,
    id: S::Id,
) -> Result<Option<Row<S>>> {
    S::Entity::find().filter(by_id::<S>(id)).one(database).await.map_err(unavailable)
}

/// See [`list`]. The caller has checked that the principal reaches the parent.
pub(super) async fn page<S: Resource>(
    database: &impl ConnectionTrait,
    principal: &Principal,
    parent: S::Parent,
    condition: Condition,
    request: PageRequest,
) -> Result<Page<Noun<S>>> {
    let select = S::listed(S::within_reach(principal, parent).filter(condition));
    let rows = lists::page(database, select, S::ID, request).await?;
    lists::convert(rows, |row| S::from_row(row, Values::Masked))
}

/// Writes a new noun with its secret, and announces it.
pub(super) async fn insert<S: Resource>(
    transaction: &Transaction<'_>,
    noun: &Noun<S>,
    secret: &S::Secret,
) -> Result<()> {
    S::insert(transaction, noun, secret).await?;
    announce(transaction, None, Some(noun)).await
}

/// Removes a noun with what belongs to it, and announces it.
pub(super) async fn remove<S: Resource>(
    transaction: &Transaction<'_>,
    noun: &Noun<S>,
) -> Result<()> {
    S::remove(transaction, noun).await?;
    announce(transaction, Some(noun), None).await
}

async fn announce<S: Resource>(
    transaction: &Transaction<'_>,
    before: Option<&Noun<S>>,
    after: Option<&Noun<S>>,
) -> Result<()> {
    let Some(noun) = after.or(before) else { return Ok(()) };
    let (old, new) = (before.map(S::describe), after.map(S::describe));
    transaction.record(S::KIND, S::project(noun), noun.id.into(), old, new).await
}

pub(super) async fn insert_row<S: Resource>(
    transaction: &Transaction<'_>,
    row: Columns<S>,
) -> Result<()> {
    let insert = S::Entity::insert(row).exec_without_returning(&transaction.database);
    insert.await.map_err(exists(S::WHAT)).map(drop)
}

pub(super) async fn update_row<S: Resource>(
    transaction: &Transaction<'_>,
    row: Columns<S>,
) -> Result<()> {
    let update = S::Entity::update(row).exec_without_returning(&transaction.database);
    update.await.map_err(unavailable).map(drop)
}
