-- Claim an alert for a hook: may this host run it now?
--
-- KEYS  1: hash of the hook: mark (log id of the last alert done), claim (log id), until (µs)
-- ARGV  1: log id of the alert   2: microseconds to claim it for
-- Returns 'done' (it was run before), 'busy' (another host is at it) or 'yours'.
local function after(x, y)
  local xm, xs = string.match(x, '^(%d+)-(%d+)$')
  local ym, ys = string.match(y, '^(%d+)-(%d+)$')
  xm, xs, ym, ys = tonumber(xm), tonumber(xs), tonumber(ym), tonumber(ys)
  return xm > ym or (xm == ym and xs > ys)
end
local found = redis.call('HMGET', KEYS[1], 'mark', 'claim', 'until')
if found[1] and not after(ARGV[1], found[1]) then return 'done' end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if found[2] == ARGV[1] and found[3] and tonumber(found[3]) > now then return 'busy' end
local till = string.format('%.0f', now + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'until', till)
return 'yours'
