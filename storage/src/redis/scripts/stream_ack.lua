#!lua flags=allow-oom
-- The group is done with these. It makes room, so it runs also where there is none.
-- KEYS: the partitions. ARGV: the group, then of each item its partition from 1 and its id.
for i = 2, #ARGV, 2 do redis.call('XACK', KEYS[tonumber(ARGV[i])], ARGV[1], ARGV[i + 1]) end
return 0
