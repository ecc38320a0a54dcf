-- Queues the jobs that fit.
-- KEYS: stream, held, counts, epoch.
-- ARGV: size of the window, field of the job in an entry; then five for each job: epoch, delivery,
-- place (see keys.rs), limit of the endpoint, the job itself.
-- Returns a number for each job: 0 queued, 1 present, 2 full, 3 wrong epoch.
local FIRST, WIDTH = 3, 5
local stream, held, counts = KEYS[1], KEYS[2], KEYS[3]
local epoch = redis.call('GET', KEYS[4])
local window = tonumber(ARGV[1])

-- Read everything once, for all jobs together.
local deliveries, names, count, units_of, names_of = {}, {'t'}, {t = 0}, {}, {}
for at = FIRST, #ARGV, WIDTH do
  local place = ARGV[at + 2]
  local b1, b2, b3, b4 = string.byte(place, 5, 8)
  local endpoint = string.sub(place, 9, 24)
  local own = {'n' .. endpoint, 'e' .. endpoint,
    'p' .. string.sub(place, 25, 40), 'o' .. string.sub(place, 41, 56)}
  deliveries[#deliveries + 1] = ARGV[at + 1]
  units_of[#deliveries] = ((b1 * 256 + b2) * 256 + b3) * 256 + b4
  names_of[#deliveries] = own
  for _, name in ipairs(own) do
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

-- The rule of fair shares, as in model::shares: after a grant nobody holds more than what is left
-- for the others.
local function fits(used, amount, left)
  return amount <= left and (used == 0 or used + 2 * amount <= left)
end
local function left_within(used, left)
  return used == 0 and left or math.floor(math.max(left - used, 0) / 2)
end
local function may_take(names, units)
  local endpoint, project, organization = count[names[2]], count[names[3]], count[names[4]]
  local left = window - count['t']
  local of_organization = left_within(organization, left)
  local of_project = left_within(project, of_organization)
  return fits(organization, units, left) and fits(project, units, of_organization)
    and fits(endpoint, units, of_project)
end

-- Decide everything before the first write.
local results, places, queued, grown, taken = {}, {}, {}, {}, {}
for at = FIRST, #ARGV, WIDTH do
  local index = #results + 1
  local delivery, own, units = ARGV[at + 1], names_of[index], units_of[index]
  if ARGV[at] ~= epoch then
    results[index] = 3
  elseif present[index] or taken[delivery] then
    results[index] = 1
  elseif count[own[1]] >= tonumber(ARGV[at + 3]) or not may_take(own, units) then
    results[index] = 2
  else
    results[index] = 0
    taken[delivery] = true
    count['t'] = count['t'] + units
    for level, name in ipairs(own) do
      count[name], grown[name] = count[name] + (level == 1 and 1 or units), true
    end
    places[#places + 1] = delivery
    places[#places + 1] = ARGV[at + 2]
    queued[#queued + 1] = ARGV[at + 4]
  end
end
if #queued == 0 then
  return results
end

-- A server whose memory is full refuses the first write, and then nothing is written. It refuses
-- none of the later ones for that reason. It may refuse them because a right is missing. The shard
-- is then half written, and because it has no epoch, it is created again.
redis.call('HSET', held, unpack(places))
local failed
local function write(command, ...)
  local answer = not failed and redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then
    failed = redis.error_reply('HALFWAY ' .. command .. ' ' .. answer.err)
    if type(redis.pcall('UNLINK', KEYS[4])) == 'table' then
      redis.pcall('SET', KEYS[4], '')
    end
  end
end
local numbers = {'t', count['t']}
for name in pairs(grown) do
  numbers[#numbers + 1] = name
  numbers[#numbers + 1] = count[name]
end
write('HSET', counts, unpack(numbers))
for _, job in ipairs(queued) do
  write('XADD', stream, '*', ARGV[2], job)
end
return failed or results
