-- Creates the group if it is missing, so that reading can continue.
-- KEYS: stream, held, counts, epoch, identity.
-- ARGV: group.
-- Returns 1 if it was missing.
--
-- If the group is missing, somebody has emptied the stream. Whatever is left of the shard is then
-- wrong (places of jobs that are gone), so all of it is removed. Because the epoch is missing, the
-- feeder asks for a new one.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  -- A refusal says nothing about the stream, and a sound shard must not be cleared because of it.
  if not string.find(groups.err, 'no such key', 1, true)
    and not string.find(groups.err, 'WRONGTYPE', 1, true) then
    return groups
  end
else
  for _, group in ipairs(groups) do
    for at = 1, #group, 2 do
      if group[at] == 'name' and group[at + 1] == ARGV[1] then
        return 0
      end
    end
  end
end
redis.call('UNLINK', unpack(KEYS))
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
return 1
