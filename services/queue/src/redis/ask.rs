//! Queries about jobs that wait or are held, with one round trip for each shard.

use ::redis::{Cmd, cmd};
use futures::future::try_join_all;
use outrider_model::{
    DeliveryId, EndpointId, Recipient, Result,
    shares::{self, Held, SMALLEST_TOTAL},
};

use super::{
    RedisQueue, Shard,
    error::unexpected,
    keys::{TOTAL_UNITS, endpoint_jobs, generation, units},
};

/// The number of fields that are read for each endpoint.
const FIELDS: usize = 4;

impl RedisQueue {
    /// Returns the generation of the job of each delivery.
    pub(super) async fn held_in_shards(
        &self,
        deliveries: &[(EndpointId, DeliveryId)],
    ) -> Result<Vec<Option<u32>>> {
        let groups = self.by_shard(deliveries.iter().map(|(endpoint, _)| *endpoint));
        let answers = try_join_all(groups.iter().map(|(shard, indexes)| async move {
            let mut command = hmget(shard.keys.held());
            for index in indexes {
                command.arg(deliveries[*index].1.as_bytes().as_slice());
            }
            self.commands.query::<Vec<Option<Vec<u8>>>>("held", &command).await
        }));
        let mut generations = vec![None; deliveries.len()];
        for ((_, indexes), places) in groups.iter().zip(answers.await?) {
            for (index, place) in indexes.iter().zip(places) {
                generations[*index] = place.as_deref().and_then(generation);
            }
        }
        Ok(generations)
    }

    /// Returns the room of each endpoint with its limit.
    pub(super) async fn room_in_shards(&self, endpoints: &[(Recipient, u32)]) -> Result<Vec<u32>> {
        let groups = self.by_shard(endpoints.iter().map(|(who, _)| who.endpoint));
        let answers =
            groups.iter().map(|(shard, indexes)| self.room_in_shard(shard, endpoints, indexes));
        let answers = try_join_all(answers).await?;
        let mut rooms = vec![0; endpoints.len()];
        for ((_, indexes), answer) in groups.iter().zip(answers) {
            for (index, room) in indexes.iter().zip(answer) {
                rooms[*index] = room;
            }
        }
        Ok(rooms)
    }

    async fn room_in_shard(
        &self,
        shard: &Shard,
        all: &[(Recipient, u32)],
        indexes: &[usize],
    ) -> Result<Vec<u32>> {
        let mut command = hmget(shard.keys.counts());
        command.arg(TOTAL_UNITS);
        for (who, _) in indexes.iter().map(|index| &all[*index]) {
            command.arg(endpoint_jobs(who.endpoint).as_slice());
            for field in units(who) {
                command.arg(field.as_slice());
            }
        }
        let counts: Vec<Option<u32>> = self.commands.query("room", &command).await?;
        let Some((total, counts)) =
            counts.split_first().filter(|(_, counts)| counts.len() == FIELDS * indexes.len())
        else {
            return Err(unexpected("room"));
        };
        let left = self.options.window.max(SMALLEST_TOTAL).saturating_sub(total.unwrap_or(0));
        let room = |(index, counts): (&usize, &[Option<u32>])| {
            let count = |field: usize| counts[field].unwrap_or(0);
            let held = Held { endpoint: count(1), project: count(2), organization: count(3) };
            let (_, limit) = all[*index];
            limit.saturating_sub(count(0)).min(shares::room(held, left))
        };
        Ok(indexes.iter().zip(counts.chunks_exact(FIELDS)).map(room).collect())
    }
}

fn hmget(key: &str) -> Cmd {
    let mut command = cmd("HMGET");
    command.arg(key);
    command
}
