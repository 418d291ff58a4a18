-- Take entries with ids of the far future off an intake, and let it go on from where it was.
--
-- KEYS  1: the intake
-- ARGV  1: the smallest id that lies too far ahead   2: the engine's cursor at this intake
--       3 …: ids of entries that are among the dead letters: they leave the intake
-- Returns how many others were put back with a new id, in their order; -1 when one is too large to
-- be put back by a script: then nothing is, and the engine buries it, too.
local dead = {}
for i = 3, #ARGV do dead[ARGV[i]] = true end
local others = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+')) do
  if not dead[entry[1]] then
    if #entry[2] > 7000 then return -1 end
    others[#others + 1] = entry
  end
end
for i = 3, #ARGV do redis.call('XDEL', KEYS[1], ARGV[i]) end
for _, entry in ipairs(others) do redis.call('XDEL', KEYS[1], entry[1]) end
local top = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local last = top[1] and top[1][1] or '0-0'
local lm, ls = string.match(last, '^(%d+)-(%d+)$')
local cm, cs = string.match(ARGV[2], '^(%d+)-(%d+)$')
lm, ls, cm, cs = tonumber(lm), tonumber(ls), tonumber(cm), tonumber(cs)
if cm > lm or (cm == lm and cs > ls) then last = ARGV[2] end
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- From 7.2 on a stream does not go back behind what was deleted last, unless that mark goes back
  -- before; 6.2 knows no such mark.
  if last == '0-0' then last = '0-1' end
  local set = redis.pcall('XSETID', KEYS[1], last)
  if type(set) == 'table' and set.err then
    local info, top_id = redis.call('XINFO', 'STREAM', KEYS[1]), last
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then top_id = info[i + 1] end
    end
    local added = redis.call('XLEN', KEYS[1])
    redis.call('XSETID', KEYS[1], top_id, 'ENTRIESADDED', added, 'MAXDELETEDID', last)
    redis.call('XSETID', KEYS[1], last)
  end
end
for _, entry in ipairs(others) do redis.call('XADD', KEYS[1], '*', unpack(entry[2])) end
return #others
