-- Returns the epoch of the shard. If another server wrote the shard, clears it and gives it a new
-- epoch.
-- KEYS: stream, held, counts, epoch, identity.
-- ARGV: group, the epoch to take if a new one is needed.
-- Returns: the epoch, 1 if it is new, the server's maxmemory policy ('-' if it has none, '' if the
-- right to INFO is missing).
--
-- The script itself reads the identity. In a cluster, it is then the identity of the master that
-- owns the slot, and no failover can come between reading it and comparing it. The identity has two
-- parts. The run id changes with every start, and differs between a master and its replicas. The
-- second replication id names the master that the server was a replica of before. It changes if the
-- server was a replica for a while, and so may hold the data of another server. The first
-- replication id is not part of the identity: it also changes when a master gets its first replica
-- and some time after it loses its last one, and nothing is lost then.
--
-- If the right to INFO is missing, nothing is known of the server, and it counts as the one that
-- wrote the shard. A process without the right thus does not clear what a process with it has
-- written. A shard whose epoch is empty was half written.
local function field(section, name)
  local text = redis.pcall('INFO', section)
  if type(text) == 'table' then
    return nil
  end
  return string.match(text, name .. ':(%S+)') or '-'
end
local run, former = field('server', 'run_id'), field('replication', 'master_replid2')
local identity = run and former and run .. ':' .. former
local policy = field('memory', 'maxmemory_policy') or ''
local epoch = redis.call('GET', KEYS[4])
local written = redis.call('GET', KEYS[5])
local known = epoch and epoch ~= '' and written and (not identity or written == identity)
if known and redis.call('EXISTS', KEYS[1]) == 1 then
  return {epoch, 0, policy}
end
-- UNLINK comes first, because a server with full memory allows it, and refuses no later write of
-- the script for that reason.
redis.call('UNLINK', unpack(KEYS))
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
redis.call('SET', KEYS[5], identity or '-')
redis.call('SET', KEYS[4], ARGV[2])
return {ARGV[2], 1, policy}
