-- Write entries to one inbox; each carries the id of its event on the log.
--
-- KEYS  1: the inbox
-- ARGV  1: entries E   then E × (log id, fields F, F × (name value))
-- Returns the number written. An entry that stands there already is a repeat and is left alone.
-- One that is missing below the top (another host was ahead) is written above it instead; the
-- worker knows it by task, attempt, session and log id, not by its place.
-- A key of another type that somebody put there gives way: the inbox is ours alone.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'stream' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local written, a = 0, 1
for _ = 1, tonumber(ARGV[1]) do
  local id, fields = ARGV[a + 1], 2 * tonumber(ARGV[a + 2])
  local values = {unpack(ARGV, a + 3, a + 2 + fields)}
  a = a + 2 + fields
  local done = redis.pcall('XADD', KEYS[1], id, 'log', id, unpack(values))
  if type(done) == 'table' and done.err then
    local repeated = #redis.call('XRANGE', KEYS[1], id, id) > 0
    if not repeated then
      for _, entry in ipairs(redis.call('XRANGE', KEYS[1], id, '+')) do
        if entry[2][2] == id then repeated = true break end
      end
    end
    if not repeated then
      redis.call('XADD', KEYS[1], '*', 'log', id, unpack(values))
      written = written + 1
    end
  else
    written = written + 1
  end
end
return written
