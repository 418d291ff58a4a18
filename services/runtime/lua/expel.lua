-- Take entries with ids of the far future off a door, and let it go on from where it was.
--
-- KEYS  1: the door
-- ARGV  1: the smallest id that lies too far ahead   2: the desk's cursor at this door
--       3 …: ids of entries that are among the dead letters: they leave the door
-- Returns how many others were put back with a new id, in their order; -1 when one is too large to
-- be put back by a script: then nothing is, and the desk buries it, too.
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
-- Newer servers never set a stream back below what was deleted from it: there it is made anew, from
-- what lies behind the cursor. (What is too large to be put back there was refused before: doors are
-- read in order.)
local set = redis.call('EXISTS', KEYS[1]) == 0 or redis.pcall('XSETID', KEYS[1], last)
if type(set) == 'table' and set.err then
  local waiting = redis.call('XRANGE', KEYS[1], '(' .. ARGV[2], '+')
  redis.call('DEL', KEYS[1])
  if ARGV[2] ~= '0-0' then
    redis.call('XADD', KEYS[1], ARGV[2], 'type', '')
    redis.call('XDEL', KEYS[1], ARGV[2])
  end
  for _, entry in ipairs(waiting) do
    if #entry[2] <= 7000 then redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
  end
end
for _, entry in ipairs(others) do redis.call('XADD', KEYS[1], '*', unpack(entry[2])) end
return #others
