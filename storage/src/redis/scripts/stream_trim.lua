#!lua flags=allow-oom
-- Drops a partition's old items, for groups as well: what they have not acknowledged of it is forgotten, and those
-- that were still before its end go on after it.
-- KEYS: the partition. ARGV: the most items to keep or '', the first id to keep or ''.
local stream = KEYS[1]
local before = redis.call('XLEN', stream)
if before == 0 then return 0 end
if ARGV[1] ~= '' then redis.call('XTRIM', stream, 'MAXLEN', ARGV[1]) end
if ARGV[2] ~= '' then redis.call('XTRIM', stream, 'MINID', ARGV[2]) end
local left = redis.call('XLEN', stream)
if left == before then return 0 end

local function named(fields)
  local info = {}
  for i = 1, #fields, 2 do info[fields[i]] = fields[i + 1] end
  return info
end

-- Ids are two numbers of 64 bits, more than Lua's have, so these two work on digits.
local function split(id)
  local major, minor = string.match(id, '^(%d+)-(%d+)$')
  return major, minor
end

local function less(a, b)
  local a1, a2 = split(a)
  local b1, b2 = split(b)
  if a1 == b1 then a1, b1 = a2, b2 end
  if #a1 ~= #b1 then return #a1 < #b1 end
  return a1 < b1
end

local function minus_one(number)
  local head, digit, zeros = string.match(number, '^(%d*)([1-9])(0*)$')
  local less_one = head .. (tonumber(digit) - 1) .. string.rep('9', #zeros)
  return (string.gsub(less_one, '^0(%d)', '%1'))
end

local info = named(redis.call('XINFO', 'STREAM', stream))
local gone = info['last-generated-id']
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
if first then
  local major, minor = split(first[1])
  if minor == '0' then
    gone = minus_one(major) .. '-18446744073709551615'
  else
    gone = major .. '-' .. minus_one(minor)
  end
end
for _, fields in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = named(fields)
  if less(group['last-delivered-id'], gone) then
    -- With the count, since Redis' own goes wrong over items that were trimmed unread.
    redis.call('XGROUP', 'SETID', stream, group['name'], gone, 'ENTRIESREAD', info['entries-added'] - left)
  end
  repeat
    local given = redis.call('XPENDING', stream, group['name'], '-', gone, 1000)
    for _, entry in ipairs(given) do redis.call('XACK', stream, group['name'], entry[1]) end
  until #given < 1000
end
return before - left
