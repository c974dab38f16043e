-- What a session was sent after a number. ARGV: owner, session, seq. Gives {seq, text, …}.
if not owned(ARGV[6], ARGV[5]) then
  return {}
end
local missed = {}
local entries = redis.call('XRANGE', P .. 'm:' .. ARGV[6], (tonumber(ARGV[7]) + 1) .. '-0', '+')
for _, entry in ipairs(entries) do
  missed[#missed + 1] = string.match(entry[1], '^%d+')
  missed[#missed + 1] = entry[2][2]
end
return missed
