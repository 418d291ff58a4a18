-- Put refused intake entries among the dead letters, each once, and let the oldest go.
--
-- KEYS  1: the dead letters   2: hash mark -> last entry id put there   3: how many were dropped
-- ARGV  1: letters L   2: most letters   3: most bytes   4: most marks
--       then L × (intake, entry id, mark, error, size in bytes, fields F, F × (name value))
-- Returns how many letters were ever dropped. The mark is the intake, which is read in order: an entry
-- at or below it is a repeat. An entry with an id in the far future has a mark of its own, "intake id".
local function after(x, y)
  if not y then return true end
  local xm, xs = string.match(x, '^(%d+)-(%d+)$')
  local ym, ys = string.match(y, '^(%d+)-(%d+)$')
  xm, xs, ym, ys = tonumber(xm), tonumber(xs), tonumber(ym), tonumber(ys)
  return xm > ym or (xm == ym and xs > ys)
end
for k, wanted in ipairs({'stream', 'hash', 'string'}) do  -- before the first write
  local kind = redis.call('TYPE', KEYS[k]).ok
  if kind ~= wanted and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[k] .. ' is a ' .. kind .. ', not a ' .. wanted)
  end
end
local function bytes() return redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0) or 0 end
-- How many of the oldest hold `over` bytes; of a node that is not yet empty no byte comes free.
local function oldest(over)
  local n = 0
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 16)) do
    for _, part in ipairs(entry[2]) do over = over - #part end
    n = n + 1
    if over <= 0 then break end
  end
  return n
end

local a = 4
for _ = 1, tonumber(ARGV[1]) do
  local intake, id, mark, err, size = unpack(ARGV, a + 1, a + 5)
  local fields = 2 * tonumber(ARGV[a + 6])
  if after(id, redis.call('HGET', KEYS[2], mark)) then
    redis.call('XADD', KEYS[1], '*', 'intake', intake, 'entry', id, 'error', err, 'size', size,
      unpack(ARGV, a + 7, a + 6 + fields))
    redis.call('HSET', KEYS[2], mark, id)
  end
  a = a + 6 + fields
end
local most = tonumber(ARGV[3])
local dropped = redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[2])
local left, held = redis.call('XLEN', KEYS[1]), bytes()
if held > most then most = most - most / 10 end  -- some at once: not one for each that comes
while held > most and left > 1 do
  local n = math.min(oldest(held - most), left - 1)
  dropped = dropped + redis.call('XTRIM', KEYS[1], 'MAXLEN', left - n)
  left, held = left - n, bytes()
end
if redis.call('HLEN', KEYS[2]) > tonumber(ARGV[4]) then
  for _, mark in ipairs(redis.call('HKEYS', KEYS[2])) do
    if string.find(mark, ' ', 1, true) then redis.call('HDEL', KEYS[2], mark) end
  end
end
dropped = dropped + (tonumber(redis.call('GET', KEYS[3]) or 0) or 0)
if dropped > 0 then redis.call('SET', KEYS[3], string.format('%.0f', dropped)) end
return dropped
