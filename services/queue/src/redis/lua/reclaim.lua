-- Takes over jobs whose lease ran out, in one page of the held jobs.
-- KEYS: stream.
-- ARGV: group, consumer, lease in milliseconds, first entry of the page, entries of a page, maximum
-- number of jobs to take, milliseconds after which a consumer that holds nothing is removed (0:
-- check none).
-- Returns: the last entry of the page ('' if there was none), 1 if more may follow, the jobs.
local stream, group = KEYS[1], ARGV[1]
local lease, page = tonumber(ARGV[3]), tonumber(ARGV[5])
local most, forgotten = tonumber(ARGV[6]), tonumber(ARGV[7])
local last, expired = '', {}
local pending = redis.call('XPENDING', stream, group, ARGV[4], '+', page)
local more = #pending == page and 1 or 0
for index, entry in ipairs(pending) do
  last = entry[1]
  if entry[3] >= lease then
    expired[#expired + 1] = entry[1]
    if #expired == most then
      more = index < #pending and 1 or more
      break
    end
  end
end

local jobs, there = {}, {}
if #expired > 0 then
  -- An entry that was deleted while it was held is left out, or nil on old servers. Its place among
  -- the held entries is freed.
  local claimed = redis.call('XCLAIM', stream, group, ARGV[2], lease, unpack(expired))
  for index = 1, #expired do
    local job = claimed[index]
    if job then
      jobs[#jobs + 1] = job
      there[job[1]] = true
    end
  end
  for _, entry in ipairs(expired) do
    if not there[entry] then
      redis.call('XACK', stream, group, entry)
    end
  end
end

-- Every process that ever read leaves a consumer behind, and their number would only grow. If the
-- right to remove them is missing, the jobs that were just taken over must not be lost.
if forgotten > 0 then
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
  for _, consumer in ipairs(consumers) do
    local about = {}
    for at = 1, #consumer, 2 do
      about[consumer[at]] = consumer[at + 1]
    end
    if about.pending == 0 and about.idle >= forgotten and about.name ~= ARGV[2] then
      redis.pcall('XGROUP', 'DELCONSUMER', stream, group, about.name)
    end
  end
end
return {last, more, jobs}
