-- Removes jobs and frees their places.
-- KEYS: stream, held, counts, epoch.
-- ARGV: group; then four for each job: epoch, entry, delivery, generation (4 bytes).
-- Returns the number of freed places.
local FIRST, WIDTH = 2, 4
local stream, held, counts = KEYS[1], KEYS[2], KEYS[3]
local epoch = redis.call('GET', KEYS[4])
local entries, deliveries, at_of = {}, {}, {}
for at = FIRST, #ARGV, WIDTH do
  -- Jobs of another epoch are already gone.
  if ARGV[at] == epoch then
    entries[#entries + 1] = ARGV[at + 1]
    deliveries[#deliveries + 1] = ARGV[at + 2]
    at_of[#at_of + 1] = at
  end
end
if #entries == 0 then
  return 0
end

local places = redis.call('HMGET', held, unpack(deliveries))

-- XACK is the first write, because a server with full memory allows it, and refuses no later write
-- of the script for that reason, so the counts can be written as well. It may refuse them because a
-- right is missing. The shard is then half written, and because it has no epoch, it is created
-- again.
redis.call('XACK', stream, ARGV[1], unpack(entries))
local failed
local function write(command, ...)
  local answer = not failed and redis.pcall(command, ...)
  if type(answer) ~= 'table' or not answer.err then
    return answer
  end
  failed = redis.error_reply('HALFWAY ' .. command .. ' ' .. answer.err)
  if type(redis.pcall('UNLINK', KEYS[4])) == 'table' then
    redis.pcall('SET', KEYS[4], '')
  end
end
write('XDEL', stream, unpack(entries))

local freed, less, seen = {}, {t = 0}, {}
for index, place in ipairs(places) do
  if place and string.sub(place, 1, 4) == ARGV[at_of[index] + 3]
    and not seen[deliveries[index]] then
    seen[deliveries[index]] = true
    freed[#freed + 1] = deliveries[index]
    local b1, b2, b3, b4 = string.byte(place, 5, 8)
    local units = ((b1 * 256 + b2) * 256 + b3) * 256 + b4
    local endpoint = string.sub(place, 9, 24)
    local project = string.sub(place, 25, 40)
    local organization = string.sub(place, 41, 56)
    less['t'] = less['t'] + units
    less['n' .. endpoint] = (less['n' .. endpoint] or 0) + 1
    less['e' .. endpoint] = (less['e' .. endpoint] or 0) + units
    less['p' .. project] = (less['p' .. project] or 0) + units
    less['o' .. organization] = (less['o' .. organization] or 0) + units
  end
end
if #freed == 0 then
  return failed or 0
end
write('HDEL', held, unpack(freed))
if write('HLEN', held) == 0 then
  -- Counts are derived: if nothing is held, they are removed, whatever happened before.
  write('UNLINK', counts)
else
  for name, number in pairs(less) do
    local left = write('HINCRBY', counts, name, -number)
    if left and left <= 0 then
      write('HDEL', counts, name)
    end
  end
end
return failed or #freed
