-- Tries every command that reading and the scripts need on a key that nothing else uses, and
-- removes that key again.
-- KEYS: the five of the shard, which checks the right to them (they are not touched); the key to
-- try commands on.
-- ARGV: group.
-- Returns two texts for each refused command: its name in access control lists, and the server's
-- words.
--
-- Each command must really run: servers check the number of arguments before the rights, and report
-- a missing right only if the call would have had an effect. An error about the type of the key or
-- a missing group shows that the command ran.
local key, group = KEYS[6], ARGV[1]
local STATES = {'READONLY', 'OOM', 'MISCONF', 'NOREPLICAS', 'LOADING', 'MASTERDOWN', 'CLUSTERDOWN',
  'MOVED', 'ASK', 'TRYAGAIN'}
local RAN = {'WRONGTYPE', 'NOGROUP', 'BUSYGROUP', 'no such key'}
local refused, state = {}, nil

local function has(text, signs)
  for _, sign in ipairs(signs) do
    if string.find(text, sign, 1, true) then
      return true
    end
  end
end
local function try(name, ...)
  local answer = redis.pcall(...)
  local text = type(answer) == 'table' and answer.err
  if text and has(text, STATES) then
    state = state or text
  elseif text and not has(text, RAN) then
    refused[#refused + 1] = name
    refused[#refused + 1] = text
  end
  return not text and answer
end

-- UNLINK comes first, because a server with full memory allows it, and refuses no later write of
-- the script for that reason.
try('unlink', 'UNLINK', key)
try('set', 'SET', key, '1')
try('get', 'GET', key)
try('exists', 'EXISTS', key)
redis.pcall('UNLINK', key)
try('hset', 'HSET', key, 'f', '1')
try('hmget', 'HMGET', key, 'f')
try('hlen', 'HLEN', key)
try('hincrby', 'HINCRBY', key, 'f', '1')
try('hdel', 'HDEL', key, 'f')
redis.pcall('UNLINK', key)
try('xgroup|create', 'XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
local entry = try('xadd', 'XADD', key, '*', 'job', '') or '1-1'
try('xreadgroup', 'XREADGROUP', 'GROUP', group, 'probe', 'COUNT', '1', 'STREAMS', key, '>')
try('xpending', 'XPENDING', key, group, '-', '+', '1')
try('xclaim', 'XCLAIM', key, group, 'probe', '0', entry)
try('xinfo|groups', 'XINFO', 'GROUPS', key)
try('xinfo|consumers', 'XINFO', 'CONSUMERS', key, group)
try('xack', 'XACK', key, group, entry)
try('xdel', 'XDEL', key, entry)
try('xgroup|delconsumer', 'XGROUP', 'DELCONSUMER', key, group, 'probe')
redis.pcall('UNLINK', key)
try('info', 'INFO', 'server')
if state then
  return redis.error_reply(state)
end
return refused
