#!lua flags=no-writes
-- The reminders of one part that are due, soonest first.
-- KEYS: the records, then the buckets to look at. ARGV: first and last ring point in 16 digits each, the time, the
-- most to give.
local first, last, limit = ARGV[1], ARGV[2], tonumber(ARGV[4])
local page = 100
local found = {}
for i = 2, #KEYS do
  local offset, here = 0, 0
  repeat
    local members = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', ARGV[3], 'WITHSCORES', 'LIMIT', offset, page)
    for j = 1, #members, 2 do
      local ring = string.sub(members[j], 1, 16)
      local inside
      if first <= last then
        inside = first <= ring and ring <= last
      else
        inside = first <= ring or ring <= last
      end
      if inside and here < limit then
        here = here + 1
        found[#found + 1] = {tonumber(members[j + 1]), string.sub(members[j], 17)}
      end
    end
    offset = offset + page
  until #members < 2 * page or here >= limit
end
table.sort(found, function(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end)
local given = {}
for i = 1, math.min(#found, limit) do
  given[i] = redis.call('HGET', KEYS[1], found[i][2])
end
return given
