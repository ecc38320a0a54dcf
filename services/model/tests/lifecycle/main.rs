//! The whole life of deliveries, without IO: rows in a database that keeps what is committed, a
//! queue that may lose everything, dispatch and workers that may die between any two steps, and
//! endpoints that fail. The steps are those of the roles, each so small that a crash can happen
//! before or after it. The model's own rules decide what a row becomes.

mod world;

use proptest::prelude::*;
use world::{DELIVERIES, Fault, Move, WORKERS, World};

fn step() -> impl Strategy<Value = Move> {
    let worker = 0..WORKERS;
    prop_oneof![
        4 => (0..DELIVERIES).prop_map(Move::Accept),
        6 => Just(Move::Enqueue),
        4 => Just(Move::Feed),
        6 => worker.clone().prop_map(Move::Take),
        6 => (worker.clone(), any::<bool>()).prop_map(|(worker, succeeds)| Move::Send { worker,
            succeeds }),
        1 => worker.clone().prop_map(Move::GiveBack),
        6 => worker.prop_map(Move::Settle),
        6 => Just(Move::Finish),
        2 => Just(Move::WatchEpochs),
    ]
}

fn fault() -> impl Strategy<Value = Move> {
    let worker = 0..WORKERS;
    prop_oneof![
        Just(Fault::DispatchDies),
        worker.clone().prop_map(Fault::WorkerDies),
        Just(Fault::QueueIsFlushed),
        Just(Fault::EnqueueIsLost),
        Just(Fault::OverdueIsAskedEarly),
        worker.clone().prop_map(Fault::LeasesRunOut),
        worker.prop_map(Fault::SettleAnswerIsLost),
    ]
    .prop_map(Move::Fault)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 20_000,
        ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, every accepted delivery ends once faults end, and it
    /// ends as its endpoint decides.
    #[test]
    fn every_accepted_delivery_ends(moves in prop::collection::vec(prop_oneof![4 => step(),
        1 => fault()], 0..120)) {
        let mut world = World::default();
        for step in moves {
            world.apply(step);
            world.check()?;
        }
        world.settle_down();
        world.check_ended()?;
    }

    /// Only faults cause duplicates, and a fault duplicates no more than what was in flight.
    #[test]
    fn without_faults_every_attempt_is_made_once(moves in prop::collection::vec(step(), 0..160)) {
        let mut world = World::default();
        for step in moves {
            world.apply(step);
            world.check()?;
        }
        world.settle_down();
        world.check_ended()?;
        world.check_sent_once()?;
    }
}
