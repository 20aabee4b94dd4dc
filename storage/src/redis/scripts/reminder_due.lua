#!lua flags=no-writes
-- The reminders of one part that are due and come after a place, soonest first, at most so many.
-- KEYS: the records, then the buckets to look at, in the order of the ring. ARGV: first and last ring point in 16
-- digits each, the time, the most to give, then the place: its time, its member in a bucket or '' to begin with those of
-- its time, how many of the buckets stand before that member's, and 1 if its own is one of them.
-- The order is that of due times, then of the ring, then of names: within a bucket that of its sorted set, and between
-- buckets of one time that of the buckets.
local first, last, most = ARGV[1], ARGV[2], tonumber(ARGV[4])
local due, member = ARGV[5], ARGV[6]
local before, own = tonumber(ARGV[7]), tonumber(ARGV[8])

-- Whether a comes after b, byte by byte as sorted sets have it, whatever the server's locale.
local function isAfter(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

-- The rank of a bucket's first reminder after the place.
local function start(bucket, key)
  if member == '' or bucket > before + own then return redis.call('ZCOUNT', key, '-inf', '(' .. due) end
  local high = redis.call('ZCOUNT', key, '-inf', due)
  if bucket <= before then return high end
  local low = redis.call('ZCOUNT', key, '-inf', '(' .. due)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if isAfter(redis.call('ZRANGE', key, middle, middle)[1], member) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local page = math.min(100, math.max(16, math.ceil(2 * most / #KEYS)))

-- Puts a bucket's next reminder in front; false if it has none that is due.
local function advance(here)
  while true do
    here.at = here.at + 2
    if here.at > #here.members then
      if here.rank >= here.stop then return false end
      local upto = math.min(here.rank + page, here.stop)
      here.members = redis.call('ZRANGE', here.key, here.rank, upto - 1, 'WITHSCORES')
      here.rank, here.at = upto, 1
    end
    here.due = tonumber(here.members[here.at + 1])
    local ring = string.sub(here.members[here.at], 1, 16)
    if first <= last then
      if first <= ring and ring <= last then return true end
    elseif first <= ring or ring <= last then
      return true
    end
  end
end

-- A heap of the buckets, the one with the soonest reminder on top.
local heap = {}
local function sooner(a, b)
  return a.due < b.due or (a.due == b.due and a.bucket < b.bucket)
end
local function sink(at)
  local here = heap[at]
  while true do
    local child = 2 * at
    if child < #heap and sooner(heap[child + 1], heap[child]) then child = child + 1 end
    if child > #heap or not sooner(heap[child], here) then break end
    heap[at], at = heap[child], child
  end
  heap[at] = here
end

for bucket = 1, #KEYS - 1 do
  local key = KEYS[bucket + 1]
  -- Most buckets have nothing that is due, and say so at once.
  local stop = redis.call('ZCOUNT', key, '-inf', ARGV[3])
  if stop > 0 then
    local here = {bucket = bucket, key = key, rank = start(bucket, key), stop = stop, members = {}, at = 1}
    if advance(here) then heap[#heap + 1] = here end
  end
end
for at = math.floor(#heap / 2), 1, -1 do sink(at) end

local given, names = {}, {}
local function fetch()
  if #names == 0 then return end
  for _, record in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do given[#given + 1] = record end
  names = {}
end
local count = 0
while count < most and #heap > 0 do
  local here = heap[1]
  names[#names + 1] = string.sub(here.members[here.at], 17)
  count = count + 1
  if #names == 1000 then fetch() end
  if not advance(here) then
    heap[1] = heap[#heap]
    heap[#heap] = nil
  end
  if #heap > 0 then sink(1) end
end
fetch()
return given
