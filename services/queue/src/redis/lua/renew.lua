-- Renews the leases of a consumer's jobs. Leaves jobs alone that another consumer has taken over,
-- or that are finished.
-- KEYS: stream.
-- ARGV: group, consumer, entries.
-- Returns the indexes, from 0 on, of the entries that the consumer no longer has.
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
