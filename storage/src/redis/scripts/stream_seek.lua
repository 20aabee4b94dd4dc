#!lua
-- Sends a group to another place; what it was given is forgotten.
-- KEYS: the partitions. ARGV: the group, then for each partition the id after which it goes on.
for i = 1, #KEYS do
  if redis.pcall('XGROUP', 'DESTROY', KEYS[i], ARGV[1]) ~= 1 then
    return redis.error_reply('NOGROUP no such group')
  end
  redis.call('XGROUP', 'CREATE', KEYS[i], ARGV[1], ARGV[i + 1])
end
return 0
