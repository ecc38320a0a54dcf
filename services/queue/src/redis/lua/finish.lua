-- Removes jobs and frees their places.
-- KEYS: stream, held, counts, epoch. ARGV: group; then six of each job: epoch, entry, delivery, generation, count of the endpoint,
-- count of the project.
-- Returns how many places were freed.
local FIRST, WIDTH = 2, 6
local stream, held, counts = KEYS[1], KEYS[2], KEYS[3]
local epoch = redis.call('GET', KEYS[4])
local entries, deliveries, at_of = {}, {}, {}
for at = FIRST, #ARGV, WIDTH do
  -- What belongs to another epoch is gone already.
  if ARGV[at] == epoch then
    entries[#entries + 1] = ARGV[at + 1]
    deliveries[#deliveries + 1] = ARGV[at + 2]
    at_of[#at_of + 1] = at
  end
end
if #entries == 0 then
  return 0
end

-- XACK comes first: it is allowed when memory is full, and after the first write a script is not refused any more, so that the
-- counts can be written as well.
redis.call('XACK', stream, ARGV[1], unpack(entries))
redis.call('XDEL', stream, unpack(entries))

local freed, less, seen = {}, {}, {}
for index, generation in ipairs(redis.call('HMGET', held, unpack(deliveries))) do
  local at = at_of[index]
  if generation == ARGV[at + 3] and not seen[deliveries[index]] then
    seen[deliveries[index]] = true
    freed[#freed + 1] = deliveries[index]
    for _, name in ipairs({ARGV[at + 4], ARGV[at + 5]}) do
      less[name] = (less[name] or 0) + 1
    end
  end
end
if #freed == 0 then
  return 0
end
redis.call('HDEL', held, unpack(freed))
if redis.call('HLEN', held) == 0 then
  -- Counts are derived: of nothing there is nothing to count, whatever happened before.
  redis.call('UNLINK', counts)
else
  for name, number in pairs(less) do
    if redis.call('HINCRBY', counts, name, -number) <= 0 then
      redis.call('HDEL', counts, name)
    end
  end
end
return #freed
