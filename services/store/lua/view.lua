-- Write a view, unless a newer one stands there.
--
-- KEYS  1: the view
-- ARGV  1: log id of this view, as a sortable text   2: value   3: seconds to live, 0 for ever
-- Returns 1 when written, 0 when the view there stands for a later place on the log.
-- The mark is the member "as_of" that every view carries: no second key, so it works in a cluster.
local there = redis.pcall('GET', KEYS[1])
if type(there) == 'string' then  -- a key of another type gives way to the view
  local ok, view = pcall(cjson.decode, there)
  if ok and type(view) == 'table' and type(view['as_of']) == 'string' then
    local ms, seq = string.match(view['as_of'], '^(%d+)-(%d+)$')
    local new_ms, new_seq = string.match(ARGV[1], '^(%d+)-(%d+)$')
    if ms and (tonumber(ms) > tonumber(new_ms)
      or (tonumber(ms) == tonumber(new_ms) and tonumber(seq) > tonumber(new_seq))) then
      return 0
    end
  end
end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
