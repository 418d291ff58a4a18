-- Publish an alert, unless it (or a later one) was published before.
--
-- KEYS  1: the mark: log id of the last alert published
-- ARGV  1: log id of the alert   2: the channel   3: the message
-- Returns 1 when published. Publishing and marking are one, so no crash repeats or loses a message.
local mark = redis.call('GET', KEYS[1])
if mark then
  local ms, seq = string.match(mark, '^(%d+)-(%d+)$')
  local new_ms, new_seq = string.match(ARGV[1], '^(%d+)-(%d+)$')
  ms, seq, new_ms, new_seq = tonumber(ms), tonumber(seq), tonumber(new_ms), tonumber(new_seq)
  if ms > new_ms or (ms == new_ms and seq >= new_seq) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
