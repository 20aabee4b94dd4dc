#!lua
-- A commit that writes one state and nothing else: commit.lua for the most common case, in two calls.
-- KEYS: the row. ARGV: the commit seen, epoch, number, the state's field, the ETag it must have or '', its value or ''.
-- Answers as commit.lua does.
local had = redis.call('HMGET', KEYS[1], 'e', 'n', ARGV[4])
local epoch = had[1]
if epoch == ARGV[2] then
  if had[2] == ARGV[3] then return 1 end
  if tonumber(had[2]) > tonumber(ARGV[3]) then return {1, epoch} end
elseif not epoch then
  if ARGV[1] ~= '0' or ARGV[3] ~= '1' then return {5} end
elseif epoch .. '-' .. had[2] ~= ARGV[1] then
  return {1, epoch}
end
local expected, state = ARGV[5], had[3]
if expected == '' then
  if state then return {2, 1} end
elseif not state or string.sub(state, 1, #expected + 1) ~= expected .. ' ' then
  return {2, 1}
end
if ARGV[6] == '' then
  redis.call('HSET', KEYS[1], 'e', ARGV[2], 'n', ARGV[3])
  redis.call('HDEL', KEYS[1], ARGV[4])
else
  redis.call('HSET', KEYS[1], 'e', ARGV[2], 'n', ARGV[3], ARGV[4], ARGV[6])
end
return 0
