-- Move elements of another system's list to a stream of ours, where each gets an id of its own.
--
-- KEYS  1: the list   2: the stream of what was taken and is not yet acknowledged
-- ARGV  1: how many at most
-- Returns how many were moved. What stands in the stream is in nobody's hands but ours: after a
-- crash it is submitted again under the same id, which the bus takes once.
local kind = redis.call('TYPE', KEYS[2]).ok  -- checked first: what was popped must have a place
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', not a stream')
end
local moved = 0
for _ = 1, tonumber(ARGV[1]) do
  local element = redis.call('LPOP', KEYS[1])
  if not element then break end
  redis.call('XADD', KEYS[2], '*', 'element', element)
  moved = moved + 1
end
return moved
