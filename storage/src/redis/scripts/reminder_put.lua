#!lua
-- Writes one reminder in place of what has its name.
-- KEYS: the records, the names, then one bucket of the ring or all. ARGV: name, record, due time, ring point in 16 digits,
-- number of the first bucket that is given.
-- A record begins with version, due time and ring point; a bucket's members are ring point and name.
-- Answers 2, and has written nothing, if it needs a bucket that is not given.
local function bucket(ring)
  local at = math.floor(tonumber(string.sub(ring, 1, 2), 16) / 4) - tonumber(ARGV[5])
  return at >= 0 and KEYS[3 + at] or nil
end
local new = bucket(ARGV[4])
if not new then return 2 end
local record = redis.call('HGET', KEYS[1], ARGV[1])
if record then
  local ring = string.match(record, '^%d+ %d+ (%x+) ')
  local old = bucket(ring)
  if not old then return 2 end
  redis.call('ZREM', old, ring .. ARGV[1])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', new, ARGV[3], ARGV[4] .. ARGV[1])
return 0
