-- Append a turn to the log, iff the log's last entry is still the one it was decided on.
--
-- KEYS  1: the log   2 … 1+T: task indexes   2+T …: hashes, one per pair   then B inboxes
-- ARGV  1: expected last entry: an event, or a foreign entry that was skipped behind it
--       2: the turn's now, µs   3: largest allowed clock difference, µs
--       4: entries E   5: T   6: the last event folded   7: its 'at', '' for not to compare   8: B
--       then E × (id type event-id source from data)
--       then T × (count id…)   then for each hash: (field, value); those of idempotency keys expire
--       then for each inbox: count, and so often (log id, fields F, F × (name value))
-- Returns {'ok', server µs, how many inbox entries were refused}
--      or {'conflict', server µs, missed entries}: nothing was written; fold these on, decide again.
--         None missed: a foreign entry that was the last one has been taken away
--      or {'gone', server µs}: the event it was decided on is not on the log any more
--      or {'behind', server µs, last id given out}: the last entries were deleted, and their ids
--         cannot be given out again; decide again, with ids after that one
--      or {'clock', server µs}: nothing was written; decide again with the right time
--      or the error WRONGTYPE, naming the key
-- Everything is checked before the first write: a script that fails midway is not rolled back. Inbox
-- entries come last, none without its dispatch; a refused one is the inbox projector's to write.
local function wrong(key, wanted)
  local kind = redis.call('TYPE', key).ok
  if kind == wanted or kind == 'none' then return nil end
  return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a ' .. wanted)
end
local function is_meant(e)  -- on a log that went back and on again, another event may have its id
  return e and (e[1] ~= ARGV[6] or ARGV[7] == '' or tonumber(e[2][10]) == tonumber(ARGV[7]))
end
local function holds(id) return is_meant(redis.call('XRANGE', KEYS[1], id, id)[1]) end
local function last_given_out()  -- "0-0" where there is no log
  if redis.call('EXISTS', KEYS[1]) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
local err = wrong(KEYS[1], 'stream')
if err then return err end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local top = newest and newest[1] or '0-0'
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local base = ARGV[1]
if not newest and last_given_out() == base then top = base end  -- trimmed to nothing: all is known
if newest and top == base and not is_meant(newest) then return {'gone', now} end
if top ~= base then
  if base ~= '0-0' and not holds(base) then
    base = ARGV[6]
    if base == ARGV[1] or (base ~= '0-0' and not holds(base)) then return {'gone', now} end
  end
  return {'conflict', now, redis.call('XRANGE', KEYS[1], '(' .. base, '+', 'COUNT', 500)}
end
if math.abs(tonumber(now) - tonumber(ARGV[2])) > tonumber(ARGV[3]) then return {'clock', now} end
local entries, tasks, inboxes = tonumber(ARGV[4]), tonumber(ARGV[5]), #KEYS - tonumber(ARGV[8])
local at, a = ARGV[2], 8
for k = 2, inboxes do
  if KEYS[k] ~= KEYS[k - 1] then
    err = wrong(KEYS[k], k < 2 + tasks and 'list' or 'hash')
    if err then return err end
  end
end
for _ = 1, entries do
  local done = redis.pcall('XADD', KEYS[1], ARGV[a + 1], 'type', ARGV[a + 2], 'id', ARGV[a + 3],
    'source', ARGV[a + 4], 'from', ARGV[a + 5], 'at', at, 'data', ARGV[a + 6])
  if done.err then  -- the first is refused, or none
    local used = string.find(done.err, 'equal or smaller', 1, true)
    return used and {'behind', now, last_given_out()} or done
  end
  a = a + 6
end
for t = 1, tasks do
  local count = tonumber(ARGV[a + 1])
  redis.call('RPUSH', KEYS[1 + t], unpack(ARGV, a + 2, a + 1 + count))
  a = a + 1 + count
end
for h = 2 + tasks, inboxes do
  redis.call('HSET', KEYS[h], ARGV[a + 1], ARGV[a + 2])
  if string.find(KEYS[h], ':ids:', 1, true) then redis.call('EXPIRE', KEYS[h], 3110400) end
  a = a + 2
end
local refused = 0
for i = inboxes + 1, #KEYS do
  a = a + 1
  for _ = 1, tonumber(ARGV[a]) do
    local id, fields = ARGV[a + 1], 2 * tonumber(ARGV[a + 2])
    local done = redis.pcall('XADD', KEYS[i], id, 'log', id, unpack(ARGV, a + 3, a + 2 + fields))
    if done.err then refused = refused + 1 end
    a = a + 2 + fields
  end
end
return {'ok', now, refused}
