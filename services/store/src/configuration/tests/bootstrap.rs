use outrider_model::Principal;

use crate::{
    Bootstrapped, NewInstallation,
    testing::{TestDatabase, tenant::*},
};

fn installation() -> NewInstallation {
    NewInstallation { organization: "Acme".to_owned(), project: "Production".to_owned() }
}

pub async fn of_many_at_once_one_makes_everything(database: &TestDatabase) {
    database.store().await.close().await;
    let tasks = (0..8).map(|_| async {
        let store = database.connect().await;
        let outcome = store.bootstrap(installation(), false).await.unwrap();
        (store, outcome)
    });
    let outcomes = futures::future::join_all(tasks).await;
    let store = &outcomes[0].0;
    let made: Vec<_> = outcomes
        .iter()
        .filter_map(|(_, outcome)| match outcome {
            Bootstrapped::Made(first) => Some(first),
            Bootstrapped::Exists(_) => None,
        })
        .collect();
    let [first] = made.as_slice() else { panic!("{} of 8 made something", made.len()) };
    for (_, outcome) in &outcomes {
        if let Bootstrapped::Exists(oldest) = outcome {
            assert_eq!((oldest.id, oldest.spec.name.as_str()), (first.organization, "Acme"));
        }
    }
    // One organization, one project and one key, each with an entry in the feed.
    assert_eq!(store.changes(0, 100).await.unwrap().len(), 3);
    let principal = Principal::system(first.organization);
    assert_eq!(
        store.list_projects(&principal, first_page(10)).await.unwrap().items[0].id,
        first.project
    );
}

pub async fn is_repeated_only_when_it_is_meant(database: &TestDatabase) {
    let store = database.store().await;
    assert!(!store.is_bootstrapped().await.unwrap());
    let Bootstrapped::Made(first) = store.bootstrap(installation(), false).await.unwrap() else {
        panic!("it was empty")
    };
    assert!(store.is_bootstrapped().await.unwrap());
    let Bootstrapped::Exists(oldest) = store.bootstrap(installation(), false).await.unwrap() else {
        panic!("it was not")
    };
    assert_eq!(oldest.id, first.organization);
    let Bootstrapped::Made(second) = store.bootstrap(installation(), true).await.unwrap() else {
        panic!("it was meant")
    };
    assert_ne!((second.organization, second.api_key), (first.organization, first.api_key));
    assert_eq!(store.changes(0, 100).await.unwrap().len(), 6);
}
