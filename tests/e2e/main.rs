//! Tests of the product from outside: on SQLite and the embedded queue, on PostgreSQL and Redis in
//! one process, and on PostgreSQL and Redis in six processes.

/// Makes tests of scenarios, each an `async fn(&Scenario) -> Result<()>` next to it: one test for
/// each shape in which the scenario can differ. Its tag says which those are:
///
/// - `everywhere`: storage, the queue and the channels between roles matter.
/// - `by_storage`: the database matters, SQLite or PostgreSQL. All roles are in one process.
/// - `by_process`: the channels between roles matter, with one process or six.
/// - `once`: nothing that differs between shapes matters.
macro_rules! scenarios {
    ($($tag:ident: [$($name:ident),+ $(,)?]),+ $(,)?) => {
        $($(scenarios!(@$tag $name);)+)+
    };
    (@everywhere $name:ident) => {
        scenarios!(@shapes $name sqlite Sqlite, postgres Postgres, mesh Mesh);
    };
    (@by_storage $name:ident) => {
        scenarios!(@shapes $name sqlite Sqlite, postgres Postgres);
    };
    (@by_process $name:ident) => {
        scenarios!(@shapes $name sqlite Sqlite, mesh Mesh);
    };
    (@once $name:ident) => {
        scenarios!(@shapes $name sqlite Sqlite);
    };
    (@shapes $name:ident $($test:ident $shape:ident),+) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let shape = outrider_tests::Shape::$shape;
                    let scenario = async |scenario: &_| super::$name(scenario).await;
                    $crate::scenario::run_shared(shape, scenario).await;
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
