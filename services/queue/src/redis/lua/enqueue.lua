-- Queues the jobs that fit.
-- KEYS: stream, held, counts, epoch. ARGV: limit of a project, limit in all, field of the job in an entry; then seven of each job:
-- epoch, delivery, generation, count of the endpoint, limit of the endpoint, count of the project, the job itself.
-- Returns a number for each job: 0 queued, 1 present, 2 full, 3 wrong epoch.
local FIRST, WIDTH = 4, 7
local stream, held, counts = KEYS[1], KEYS[2], KEYS[3]
local epoch = redis.call('GET', KEYS[4])
local per_project, total = tonumber(ARGV[1]), tonumber(ARGV[2])

-- What is asked of the server is asked once for all jobs.
local deliveries, names, count = {}, {}, {}
for at = FIRST, #ARGV, WIDTH do
  deliveries[#deliveries + 1] = ARGV[at + 1]
  for _, name in ipairs({ARGV[at + 3], ARGV[at + 5]}) do
    if not count[name] then
      count[name] = 0
      names[#names + 1] = name
    end
  end
end
local present = redis.call('HMGET', held, unpack(deliveries))
for index, number in ipairs(redis.call('HMGET', counts, unpack(names))) do
  count[names[index]] = tonumber(number) or 0
end
local depth = redis.call('HLEN', held)

-- All is decided before anything is written.
local results, places, queued, grown, taken = {}, {}, {}, {}, {}
for at = FIRST, #ARGV, WIDTH do
  local index = #results + 1
  local delivery, endpoint, project = ARGV[at + 1], ARGV[at + 3], ARGV[at + 5]
  if ARGV[at] ~= epoch then
    results[index] = 3
  elseif present[index] or taken[delivery] then
    results[index] = 1
  elseif count[endpoint] >= tonumber(ARGV[at + 4]) or count[project] >= per_project or depth >= total then
    results[index] = 2
  else
    results[index] = 0
    taken[delivery] = true
    depth = depth + 1
    count[endpoint], grown[endpoint] = count[endpoint] + 1, true
    count[project], grown[project] = count[project] + 1, true
    places[#places + 1] = delivery
    places[#places + 1] = ARGV[at + 2]
    queued[#queued + 1] = ARGV[at + 6]
  end
end
if #queued == 0 then
  return results
end

-- The first write is one that a server with full memory refuses: then nothing is written. After it nothing is refused any more.
redis.call('HSET', held, unpack(places))
local numbers = {}
for name in pairs(grown) do
  numbers[#numbers + 1] = name
  numbers[#numbers + 1] = count[name]
end
redis.call('HSET', counts, unpack(numbers))
for _, job in ipairs(queued) do
  redis.call('XADD', stream, '*', ARGV[3], job)
end
return results
