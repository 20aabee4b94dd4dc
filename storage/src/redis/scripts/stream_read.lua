#!lua
-- Gives a group what it has not acknowledged in time, and then what it was not given yet.
-- KEYS: the partitions. ARGV: the group, the consumer, visibility in milliseconds, the most to give, the partition to
-- begin with from 0.
-- Answers a list of partition from 1, id, fields, and how often it was given.
local group, consumer, visibility, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local given = {}
for turn = 1, #KEYS do
  local partition = (turn - 1 + tonumber(ARGV[5])) % #KEYS + 1
  local stream = KEYS[partition]
  if #given < limit then
    local late = redis.call('XPENDING', stream, group, 'IDLE', visibility, '-', '+', limit - #given)
    if #late > 0 then
      local ids, times = {}, {}
      for _, entry in ipairs(late) do
        ids[#ids + 1] = entry[1]
        times[entry[1]] = entry[4]
      end
      -- What was trimmed away meanwhile is not given, and forgotten.
      for _, item in ipairs(redis.call('XCLAIM', stream, group, consumer, 0, unpack(ids))) do
        if item[2] then given[#given + 1] = {partition, item[1], item[2], times[item[1]] + 1} end
      end
    end
  end
  if #given < limit then
    local fresh = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', limit - #given, 'STREAMS', stream, '>')
    if fresh then
      for _, item in ipairs(fresh[1][2]) do given[#given + 1] = {partition, item[1], item[2], 1} end
    end
  end
end
return given
