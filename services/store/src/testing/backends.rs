//! Runs tests on both backends.

/// Runs each function, which takes a `TestDatabase`, on both backends.
macro_rules! on_both {
    ($($module:ident :: $name:ident;)*) => {
        mod postgres {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(database) = $crate::testing::TestDatabase::postgres().await {
                    super::$module::$name(&database).await;
                }
            }
        )*}

        mod sqlite {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$module::$name(&$crate::testing::TestDatabase::sqlite()).await;
            }
        )*}
    };
}
pub(crate) use on_both;

/// Runs each function, which takes a `World`, on both backends.
macro_rules! on_both_backends {
    ($($name:ident)*) => {
        mod sqlite {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::testing::world::World::sqlite().await).await;
            }
        )*}
        mod postgres {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(world) = $crate::testing::world::World::postgres().await {
                    super::$name(world).await;
                }
            }
        )*}
    };
}
pub(crate) use on_both_backends;

/// The same, and on PostgreSQL also by a role that only has the rights of docs/operations.md.
macro_rules! with_granted_rights_too {
    ($($name:ident)*) => {
        $crate::testing::backends::on_both_backends! { $($name)* }
        mod granted {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(world) = $crate::testing::world::World::granted().await {
                    super::$name(world).await;
                }
            }
        )*}
    };
}
pub(crate) use with_granted_rights_too;
