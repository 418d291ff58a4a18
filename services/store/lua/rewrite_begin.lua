-- Begin to write a stream anew: an empty copy, whatever an earlier run has left behind.
--
-- KEYS  1: the stream   2: its copy   3: who makes the copy
-- ARGV  1: the run that does it
-- Returns the last id that the stream gave out, '' where it is none.
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return '' end
redis.call('UNLINK', KEYS[2])
redis.call('SET', KEYS[3], ARGV[1], 'EX', 3600)
redis.call('XGROUP', 'CREATE', KEYS[2], 'asb', '0-0', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', KEYS[2], 'asb')
redis.call('EXPIRE', KEYS[2], 3600)  -- it holds what is to go: nobody who dies leaves it for ever
local reply = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #reply, 2 do
  if reply[i] == 'last-generated-id' then return reply[i + 1] end
end
