#!lua flags=allow-oom
-- Forgets what was received before a time. It makes room, so it runs also where there is none.
-- KEYS: the inbox. ARGV: the time, the most to forget at once.
local old = math.min(redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1]), tonumber(ARGV[2]))
if old > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, old - 1) end
return old
