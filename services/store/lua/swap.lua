-- Replace a value, iff it is still the one that was read.
--
-- KEYS  1: the key
-- ARGV  1: SHA-1 of the value that was read, '' for no value   2: new value
--       3: seconds to live, 0 for ever
-- Returns 1 when replaced, 0 when something else stands there: it must be read first.
local there = redis.pcall('GET', KEYS[1])
if type(there) == 'table' and there.err then return 0 end
local found = ''
if there and there ~= '' then found = redis.sha1hex(there) end
if found ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
