use outrider_model::PageRequest;

use crate::testing::{TestDatabase, tenant::*};

pub async fn walk_forth_and_back(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(tenant.endpoint(&store).await.id);
    }
    ids.sort_unstable();
    let list = async |from| {
        let page = store
            .list_endpoints(
                &tenant.principal,
                tenant.project.id,
                None,
                PageRequest { size: 2, from },
            )
            .await
            .unwrap();
        (
            page.items.iter().map(|endpoint| endpoint.id).collect::<Vec<_>>(),
            page.next,
            page.previous,
        )
    };
    let (first, next, previous) = list(None).await;
    assert_eq!((first.as_slice(), previous), (&ids[..2], None));
    let (second, next, _) = list(next).await;
    assert_eq!(second, ids[2..4]);
    let (third, next, previous) = list(next).await;
    assert_eq!((third.as_slice(), next), (&ids[4..], None));
    let (back, _, previous) = list(previous).await;
    assert_eq!(back, second);
    let (start, _, previous) = list(previous).await;
    assert_eq!((start, previous), (first, None));
}
