-- Makes the group again where it is missing, so that reading can go on.
-- KEYS: stream, held, counts, epoch, identity. ARGV: group.
-- Returns 1 when it was missing.
--
-- Without its group the stream was emptied by somebody. Whatever else is left of the shard is then
-- untrue (places of jobs that are nowhere), so all of it goes; the missing epoch makes the feeder
-- ask for a new one.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  -- A refusal says nothing about the stream: a sound shard must not be cleared for it.
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
