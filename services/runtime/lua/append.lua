-- Append a turn to the log, iff the log's last id is still the one it was decided on.
--
-- KEYS  1: the log   2 … 1+T: task indexes   2+T …: hashes of idempotency keys, one per pair
-- ARGV  1: expected last id   2: the turn's now, µs   3: largest allowed clock difference, µs
--       4: entries E   5: T   then E × (id type event-id source from data)
--       then T × (count id…)   then for each hash: (field digest)
-- Returns {'ok', server µs}
--      or {'conflict', server µs, missed entries}: nothing was written; fold these on, decide again
--      or {'gone', server µs}: the entry it was decided on is not on the log any more
--      or {'clock', server µs}: nothing was written; decide again with the right time
-- Everything is checked before the first write: a script that fails midway is not rolled back.
local last = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] break end
  end
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
if last ~= ARGV[1] then
  if ARGV[1] ~= '0-0' and #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then
    return {'gone', now}
  end
  local missed = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 500)
  return {'conflict', now, missed}
end
if math.abs(tonumber(now) - tonumber(ARGV[2])) > tonumber(ARGV[3]) then return {'clock', now} end
local entries, tasks = tonumber(ARGV[4]), tonumber(ARGV[5])
local at, a = ARGV[2], 5
for _ = 1, entries do
  redis.call('XADD', KEYS[1], ARGV[a + 1], 'type', ARGV[a + 2], 'id', ARGV[a + 3],
    'source', ARGV[a + 4], 'from', ARGV[a + 5], 'at', at, 'data', ARGV[a + 6])
  a = a + 6
end
for t = 1, tasks do
  local count = tonumber(ARGV[a + 1])
  redis.call('RPUSH', KEYS[1 + t], unpack(ARGV, a + 2, a + 1 + count))
  a = a + 1 + count
end
for h = 2 + tasks, #KEYS do
  redis.call('HSET', KEYS[h], ARGV[a + 1], ARGV[a + 2])
  redis.call('EXPIRE', KEYS[h], 3110400)
  a = a + 2
end
return {'ok', now}
