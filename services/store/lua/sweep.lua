-- Drop the indexes of tasks whose last event was cut off the log.
--
-- KEYS  task indexes
-- ARGV  1: where the log begins
-- Returns how many were dropped.
local function before(x, y)  -- as texts: an id may be larger than what a Lua number holds exactly
  local xm, xs = string.match(x, '^(%d+)-(%d+)$')
  local ym, ys = string.match(y, '^(%d+)-(%d+)$')
  if not xm then return false end
  if xm ~= ym then return #xm < #ym or (#xm == #ym and xm < ym) end
  return #xs < #ys or (#xs == #ys and xs < ys)
end
local dropped = 0
for _, key in ipairs(KEYS) do
  local last = redis.pcall('LINDEX', key, -1)
  if type(last) == 'string' and before(last, ARGV[1]) then
    redis.call('DEL', key)
    dropped = dropped + 1
  end
end
return dropped
