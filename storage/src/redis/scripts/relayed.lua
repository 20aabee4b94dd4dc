#!lua flags=allow-oom
-- Takes messages out of a shard's outbox. It makes room, so it runs also where there is none.
-- KEYS: the index, the outbox. ARGV: the messages' fields.
for _, field in ipairs(ARGV) do
  redis.call('ZREM', KEYS[1], field)
  redis.call('HDEL', KEYS[2], field)
end
return #ARGV
