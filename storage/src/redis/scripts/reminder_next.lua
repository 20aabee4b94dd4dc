#!lua flags=no-writes
-- When the soonest reminder of one part is due.
-- KEYS: the buckets to look at. ARGV: first and last ring point in 16 digits each.
local first, last = ARGV[1], ARGV[2]
local page = 100
local soonest
for i = 1, #KEYS do
  local offset, found = 0, false
  repeat
    local members = redis.call('ZRANGE', KEYS[i], offset, offset + page - 1, 'WITHSCORES')
    for j = 1, #members, 2 do
      local ring = string.sub(members[j], 1, 16)
      local inside
      if first <= last then
        inside = first <= ring and ring <= last
      else
        inside = first <= ring or ring <= last
      end
      if inside then
        local due = tonumber(members[j + 1])
        if not soonest or due < soonest[1] then soonest = {due, members[j + 1]} end
        found = true
        break
      end
    end
    offset = offset + page
  until found or #members < 2 * page
end
return soonest and soonest[2] or false
