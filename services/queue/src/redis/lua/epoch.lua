-- The shard's epoch; a new one, in a cleared shard, when the server is not the one that wrote what
-- is here. KEYS: stream, held, counts, epoch, identity. ARGV: group, the epoch to take if a new one
-- is needed. Returns: the epoch, 1 when it is new, the server's maxmemory policy ('-' where it has
-- none, '' where the right to ask is missing).
--
-- The identity is asked inside the script: in a cluster it is then that of the master which owns
-- the slot, and no failover can come between the question and the answer. It is the run id, which
-- changes with every start and differs between master and replica, and the replication id under
-- which the server itself was a replica before, which changes when it was one in between and so may
-- hold another server's data. The present replication id is no part of it: it also changes when the
-- first replica of a master is attached and when the last one is long gone, and then nothing is
-- lost.
--
-- Where the right to INFO is missing, nothing is known of the server: it is taken for the one that
-- wrote what is here. A process that lacks the right then does not clear what another wrote that
-- has it. An epoch without text is of a shard that was half written.
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
-- UNLINK comes first: it is allowed when memory is full, and after the first write a script is not
-- refused any more for that.
redis.call('UNLINK', unpack(KEYS))
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
redis.call('SET', KEYS[5], identity or '-')
redis.call('SET', KEYS[4], ARGV[2])
return {ARGV[2], 1, policy}
