-- Put refused door entries among the dead letters, each once.
--
-- KEYS  1: the dead letters   2: hash mark -> last entry id put there
-- ARGV  1: letters L   then L × (door, entry id, mark, error, fields F, F × (name value))
-- Returns the number written. The mark is the door, which is read in order: an entry at or below it
-- is a repeat. An entry with an id in the far future has a mark of its own.
local function after(x, y)
  if not y then return true end
  local xm, xs = string.match(x, '^(%d+)-(%d+)$')
  local ym, ys = string.match(y, '^(%d+)-(%d+)$')
  xm, xs, ym, ys = tonumber(xm), tonumber(xs), tonumber(ym), tonumber(ys)
  return xm > ym or (xm == ym and xs > ys)
end
for k, wanted in ipairs({'stream', 'hash'}) do  -- before the first write
  local kind = redis.call('TYPE', KEYS[k]).ok
  if kind ~= wanted and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[k] .. ' is a ' .. kind .. ', not a ' .. wanted)
  end
end
local written, a = 0, 1
for _ = 1, tonumber(ARGV[1]) do
  local door, id, mark, err = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  local fields = 2 * tonumber(ARGV[a + 5])
  if after(id, redis.call('HGET', KEYS[2], mark)) then
    redis.call('XADD', KEYS[1], '*', 'door', door, 'entry', id, 'error', err,
      unpack(ARGV, a + 6, a + 5 + fields))
    redis.call('HSET', KEYS[2], mark, id)
    written = written + 1
  end
  a = a + 5 + fields
end
return written
