-- Begins the leases of a consumer's jobs anew. What another consumer took over in the meantime, or what is finished, is left alone.
-- KEYS: stream. ARGV: group, consumer, entries.
-- Returns how many were renewed.
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local own = {}
for at = 3, #ARGV do
  if #redis.call('XPENDING', stream, group, ARGV[at], ARGV[at], 1, consumer) == 1 then
    own[#own + 1] = ARGV[at]
  end
end
local renewed = #own
if renewed > 0 then
  own[renewed + 1] = 'JUSTID'
  redis.call('XCLAIM', stream, group, consumer, 0, unpack(own))
end
return renewed
