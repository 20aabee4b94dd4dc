#!lua flags=no-writes
-- How many items a group has still to acknowledge.
-- KEYS: the partitions. ARGV: the group.
local page, total = 1000, 0
for _, stream in ipairs(KEYS) do
  local found
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then groups = {} end
  for _, fields in ipairs(groups) do
    local info = {}
    for i = 1, #fields, 2 do info[fields[i]] = fields[i + 1] end
    if info['name'] == ARGV[1] then
      found = true
      total = total + info['pending']
      if info['lag'] then
        total = total + info['lag']
      else
        -- Redis does not know it for a group that was sent into the middle of a stream, so the items are counted.
        local from = '(' .. info['last-delivered-id']
        repeat
          local items = redis.call('XRANGE', stream, from, '+', 'COUNT', page)
          total = total + #items
          if #items > 0 then from = '(' .. items[#items][1] end
        until #items < page
      end
    end
  end
  if not found then return redis.error_reply('NOGROUP no such group') end
end
return total
