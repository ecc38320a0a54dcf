//! The product from outside: every scenario on SQLite and the embedded queue, on PostgreSQL and
//! Redis in one process, and on PostgreSQL and Redis as six processes.

/// Makes a test per shape of each scenario, an `async fn(&Scenario) -> Result<()>` beside it.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        scenarios!(@shape sqlite Sqlite $($name)+);
        scenarios!(@shape postgres Postgres $($name)+);
        scenarios!(@shape mesh Mesh $($name)+);
    };
    (@shape $module:ident $shape:ident $($name:ident)+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::scenario::run_shared(outrider_tests::Shape::$shape, async |scenario| super::$name(scenario).await).await;
                }
            )+
        }
    };
}

mod admission;
mod bad_input;
mod batch;
mod boundaries;
mod browser;
mod containers;
mod demo;
mod egress;
mod endpoints;
mod event_types;
mod faults;
mod findings;
mod fuzz;
mod hostile;
mod idempotency;
mod isolation;
mod ledger;
mod limits;
mod load;
mod malformed;
mod memory;
mod publish;
mod receivers;
mod retention;
mod retry;
mod rights;
mod scenario;
mod secrets;
mod shares;
mod stream;
mod stream_faults;
mod tail;
mod telemetry;
mod tenancy;
mod tls;
mod upload;
mod verify;
mod words;
