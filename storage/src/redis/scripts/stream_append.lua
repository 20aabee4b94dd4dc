#!lua
-- Appends items to partitions of a durable stream.
-- KEYS: the partitions. ARGV: of each item its partition from 1, its time, its key and its value.
-- An item's id begins with its time, or with the latest before it in its partition if that is later; so ids never go
-- back, and the first item from a time on is found by its id.
local latest, ids = {}, {}
for i = 1, #ARGV, 4 do
  local partition = tonumber(ARGV[i])
  local stream = KEYS[partition]
  if not latest[partition] then
    local info = redis.pcall('XINFO', 'STREAM', stream)
    latest[partition] = '0'
    if not info.err then
      for j = 1, #info, 2 do
        if info[j] == 'last-generated-id' then latest[partition] = string.match(info[j + 1], '^%d+') end
      end
    end
  end
  local time = ARGV[i + 1]
  -- Both are decimal digits without zeros in front: the longer one is greater.
  local last = latest[partition]
  if #last > #time or (#last == #time and last > time) then time = last end
  local id = redis.call('XADD', stream, time .. '-*', 't', ARGV[i + 1], 'k', ARGV[i + 2], 'v', ARGV[i + 3])
  latest[partition] = time
  ids[#ids + 1] = id
end
return ids
