#!lua flags=allow-oom
-- Drops a partition's old items, and takes them out of what groups have been given.
-- KEYS: the partition. ARGV: the most items to keep or '', the first id to keep or ''.
local before = redis.call('XLEN', KEYS[1])
if before == 0 then return 0 end
if ARGV[1] ~= '' then redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[1]) end
if ARGV[2] ~= '' then redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2]) end
local dropped = before - redis.call('XLEN', KEYS[1])
if dropped == 0 then return 0 end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local last = first and '(' .. first[1] or '+'
for _, fields in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group
  for i = 1, #fields, 2 do
    if fields[i] == 'name' then group = fields[i + 1] end
  end
  repeat
    local gone = redis.call('XPENDING', KEYS[1], group, '-', last, 1000)
    for _, entry in ipairs(gone) do redis.call('XACK', KEYS[1], group, entry[1]) end
  until #gone < 1000
end
return dropped
