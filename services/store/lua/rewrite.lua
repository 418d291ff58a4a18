-- One step of writing a stream anew: copy entries with their ids, some changed, some left out.
--
-- KEYS  1: the stream   2: its copy   3: who makes the copy   4: where the old one goes, to be freed
-- ARGV  1: the run that does it   2: entries the copy has to have by now   3: after this id
--       4: up to this id   5: 'last' for the last step, else ''
--       6: how many entries were left out, this step's with them   7: entries changed E
--       then E × (id, fields F, F × (name value)): F is 0 for an entry that is left out
-- What came behind the last id is copied in the last step as it is.
-- Returns {'ok', entries copied}
--      or {'lost'}: another run has begun, or somebody touched the copy
--      or {'more'}: the last step, and too much has come behind the last id to be copied at once
--      or {'changed'}: the last step, and what was copied is not what stands there
local function info(key)
  local known, reply = {}, redis.call('XINFO', 'STREAM', key)
  for i = 1, #reply, 2 do known[reply[i]] = reply[i + 1] end
  return known
end
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {'lost'} end
if redis.call('XLEN', KEYS[2]) ~= tonumber(ARGV[2]) then return {'lost'} end
local changed, a = {}, 7
for _ = 1, tonumber(ARGV[7]) do
  local count = 2 * tonumber(ARGV[a + 2])
  changed[ARGV[a + 1]] = {unpack(ARGV, a + 3, a + 2 + count)}
  a = a + 2 + count
end
local last, copied, news = ARGV[5] == 'last', 0, {}
if last then
  news = redis.call('XRANGE', KEYS[1], '(' .. ARGV[4], '+', 'COUNT', 501)
  if #news > 500 then return {'more'} end
  for _, entry in ipairs(news) do
    if #entry[2] > 7000 then return {'more'} end
  end
end
local function copy(entries)
  for _, entry in ipairs(entries) do
    local fields = changed[entry[1]] or entry[2]
    if #fields > 0 then
      redis.call('XADD', KEYS[2], entry[1], unpack(fields))
      copied = copied + 1
    end
  end
end
copy(redis.call('XRANGE', KEYS[1], '(' .. ARGV[3], ARGV[4]))
copy(news)
redis.call('EXPIRE', KEYS[2], 3600)
redis.call('EXPIRE', KEYS[3], 3600)
if not last then return {'ok', copied} end

local old = info(KEYS[1])
-- Entries that were deleted by hand meanwhile would come back with the copy.
if old['length'] ~= redis.call('XLEN', KEYS[2]) + tonumber(ARGV[6]) then return {'changed'} end
local function carry_groups(key)
  for _, raw in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local group = {}
    for i = 1, #raw, 2 do group[raw[i]] = raw[i + 1] end
    local name = group['name']
    redis.call('XGROUP', 'CREATE', KEYS[2], name, group['last-delivered-id'])
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', key, name)) do
      redis.call('XGROUP', 'CREATECONSUMER', KEYS[2], name, consumer[2])
    end
    if group['pending'] > 0 then
      for _, held in ipairs(redis.call('XPENDING', key, name, '-', '+', group['pending'])) do
        redis.call('XCLAIM', KEYS[2], name, held[2], 0, held[1], 'IDLE', held[3], 'RETRYCOUNT', held[4],
          'FORCE', 'JUSTID')
      end
    end
    local read = group['entries-read']
    if read then redis.call('XGROUP', 'SETID', KEYS[2], name, group['last-delivered-id'], 'ENTRIESREAD', read) end
  end
end
if old['entries-added'] then
  redis.call('XSETID', KEYS[2], old['last-generated-id'], 'ENTRIESADDED', old['entries-added'],
    'MAXDELETEDID', old['max-deleted-entry-id'])
else redis.call('XSETID', KEYS[2], old['last-generated-id']) end
carry_groups(KEYS[1])
local time_left = redis.call('PTTL', KEYS[1])
redis.call('RENAME', KEYS[1], KEYS[4])
redis.call('RENAME', KEYS[2], KEYS[1])
if time_left > 0 then redis.call('PEXPIRE', KEYS[1], time_left) else redis.call('PERSIST', KEYS[1]) end
redis.call('UNLINK', KEYS[4])
redis.call('DEL', KEYS[3])
return {'ok', copied}
