#!lua
-- One commit: all of it, or nothing.
--
-- KEYS: the row, the shard's outbox index, outbox and inbox, then of each journal its stream and its feed.
-- ARGV: the commit seen ('epoch-number', or '0' for none), epoch, number, time; then four lists, each with its length in front:
--   states:    field, the ETag it must have or '', its value or ''
--   journals:  field of its last event, the number that must have or '', the number it gets, field of its snapshot,
--              the snapshot or '', whose it is, the count of events and each one's number and value
--   messages:  field, record
--   received:  member
-- Numbers that may need 64 bits are texts throughout, since Lua's have only 53.
--
-- Answers 0 if it is written, 1 if it was already; {1, epoch} fenced; {2, i} state i is another; {3, i, number}
-- journal i ends there; {4, i} message i was received already; {5} nothing is left of an actor that has committed.
local row, index, out, inbox = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local seen, epoch, number, time = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local had = redis.call('HMGET', row, 'e', 'n')
if had[1] == epoch then
  if had[2] == number then return 1 end
  if tonumber(had[2]) > tonumber(number) then return {1, had[1]} end
elseif not had[1] then
  if seen ~= '0' or number ~= '1' then return {5} end
elseif had[1] .. '-' .. had[2] ~= seen then
  return {1, had[1]}
end

-- First everything is checked.
local at = 5
local states_at = at
local states = tonumber(ARGV[at])
at = at + 1
for i = 1, states do
  local expected, state = ARGV[at + 1], redis.call('HGET', row, ARGV[at])
  if expected == '' then
    if state then return {2, i} end
  elseif not state or string.sub(state, 1, #expected + 1) ~= expected .. ' ' then
    return {2, i}
  end
  at = at + 3
end
local journals_at = at
local journals = tonumber(ARGV[at])
at = at + 1
for i = 1, journals do
  local last = redis.call('HGET', row, ARGV[at]) or '0'
  if last ~= ARGV[at + 1] then return {3, i, last} end
  at = at + 7 + 2 * tonumber(ARGV[at + 6])
end
local messages_at = at
at = at + 1 + 2 * tonumber(ARGV[at])
local received_at = at
local received = tonumber(ARGV[at])
for i = 1, received do
  if redis.call('ZSCORE', inbox, ARGV[at + i]) then return {4, i} end
end

-- Then everything is written. Journals go first: a stream is the only thing here that refuses an entry.
at = journals_at + 1
for i = 1, journals do
  local stream, feed = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  local events = tonumber(ARGV[at + 6])
  for event = 1, events do
    local sequence = ARGV[at + 5 + 2 * event]
    redis.call('XADD', stream, sequence .. '-0', 't', time, 'v', ARGV[at + 6 + 2 * event])
    redis.call('XADD', feed, '*', 'a', ARGV[at + 5], 'n', sequence)
  end
  if events > 0 then redis.call('HSET', row, ARGV[at], ARGV[at + 2]) end
  if ARGV[at + 4] ~= '' then redis.call('HSET', row, ARGV[at + 3], ARGV[at + 4]) end
  at = at + 7 + 2 * events
end
redis.call('HSET', row, 'e', epoch, 'n', number)
at = states_at + 1
for i = 1, states do
  if ARGV[at + 2] == '' then
    redis.call('HDEL', row, ARGV[at])
  else
    redis.call('HSET', row, ARGV[at], ARGV[at + 2])
  end
  at = at + 3
end
at = messages_at
for i = 1, tonumber(ARGV[messages_at]) do
  local place = redis.call('HINCRBY', out, 'n', 1)
  redis.call('HSET', out, ARGV[at + 1], ARGV[at + 2])
  redis.call('ZADD', index, place, ARGV[at + 1])
  at = at + 2
end
for i = 1, received do
  redis.call('ZADD', inbox, time, ARGV[received_at + i])
end
return 0
