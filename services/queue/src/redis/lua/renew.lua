-- Begins the leases of a consumer's jobs again. A job that another consumer took over meanwhile, or
-- that is finished, is left alone. KEYS: stream. ARGV: group, consumer, entries. Returns the places
-- in the list of entries, from 0 on, of those that are not the consumer's any more.
local FIRST = 3
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local own, lost = {}, {}
for at = FIRST, #ARGV do
  if #redis.call('XPENDING', stream, group, ARGV[at], ARGV[at], 1, consumer) == 1 then
    own[#own + 1] = ARGV[at]
  else
    lost[#lost + 1] = at - FIRST
  end
end
if #own > 0 then
  own[#own + 1] = 'JUSTID'
  redis.call('XCLAIM', stream, group, consumer, 0, unpack(own))
end
return lost
