#!lua
-- Writes one reminder in place of what has its name.
-- KEYS: the records, the names, then the buckets of the ring. ARGV: name, record, due time, ring point in 16 digits,
-- bucket from 1.
-- A record begins with version, due time and ring point; a bucket's members are ring point and name.
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then
  local ring = string.match(old, '^%d+ %d+ (%x+) ')
  redis.call('ZREM', KEYS[3 + math.floor(tonumber(string.sub(ring, 1, 2), 16) / 4)], ring .. ARGV[1])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[2 + ARGV[5]], ARGV[3], ARGV[4] .. ARGV[1])
return 0
