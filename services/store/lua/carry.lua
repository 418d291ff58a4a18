-- Copy entries of the log, with their ids, to where they outlive its cut.
--
-- KEYS  1: the log   2: the stream of carried entries
-- ARGV  ids, in order
-- Ids that the stream has, or has passed, are left alone: a crash made somebody do this again.
-- Returns how many were copied.
local copied = 0
for _, id in ipairs(ARGV) do
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    local reply = redis.pcall('XADD', KEYS[2], id, unpack(entry[2]))
    if type(reply) ~= 'table' or not reply.err then copied = copied + 1 end
  end
end
return copied
