#!lua
-- Makes a group in each partition. One that is there stays where it is.
-- KEYS: the partitions. ARGV: the group, then for each partition the id after which it begins.
for i = 1, #KEYS do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[1], ARGV[i + 1], 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
end
return 0
