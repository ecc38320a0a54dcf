-- The shard's epoch; a new one, in a cleared shard, when the server is not the one that wrote what is here.
-- KEYS: stream, held, counts, epoch, identity. ARGV: group, the epoch to take if a new one is needed.
-- Returns: the epoch, 1 when it is new, the server's maxmemory policy.
--
-- The identity is asked inside the script: in a cluster it is then that of the master which owns the slot, and no failover can come
-- between the question and the answer. It is the run id, which changes with every start and differs between master and replica, and
-- the replication id under which the server itself was a replica before, which changes when it was one in between and so may hold
-- another server's data. The present replication id is no part of it: it also changes when the first replica of a master is attached
-- and when the last one is long gone, and then nothing is lost.
local function field(section, name)
  return string.match(redis.call('INFO', section), name .. ':(%S+)') or '-'
end
local identity = field('server', 'run_id') .. ':' .. field('replication', 'master_replid2')
local policy = field('memory', 'maxmemory_policy')
local epoch = redis.call('GET', KEYS[4])
local written = redis.call('GET', KEYS[5])
if epoch and written == identity and redis.call('EXISTS', KEYS[1]) == 1 then
  return {epoch, 0, policy}
end
-- UNLINK comes first: it is allowed when memory is full, and after the first write a script is not refused any more.
redis.call('UNLINK', unpack(KEYS))
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
redis.call('SET', KEYS[5], identity)
redis.call('SET', KEYS[4], ARGV[2])
return {ARGV[2], 1, policy}
