#!lua
-- Moves a reminder on to its next time, or removes it.
-- KEYS: the records, the names, then one bucket of the ring or all. ARGV: name, the version it must have or '' for any,
-- its next due time or '' to remove it, its next version, number of the first bucket that is given.
-- Answers 1 if it did, and 2 if it needs a bucket that is not given.
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return 0 end
local version, ring, rest = string.match(record, '^(%d+) %d+ (%x+) (.*)$')
if ARGV[2] ~= '' and ARGV[2] ~= version then return 0 end
local at = math.floor(tonumber(string.sub(ring, 1, 2), 16) / 4) - tonumber(ARGV[5])
local bucket = at >= 0 and KEYS[3 + at]
if not bucket then return 2 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', bucket, ring .. ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[4] .. ' ' .. ARGV[3] .. ' ' .. ring .. ' ' .. rest)
  redis.call('ZADD', bucket, ARGV[3], ring .. ARGV[1])
end
return 1
