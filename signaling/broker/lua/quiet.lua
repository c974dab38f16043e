-- Who is quietly in a room. ARGV: room. Gives identities, at most a thousand.
local found, members = {}, redis.call('HGETALL', P .. 'r:' .. ARGV[5])
for i = 1, #members, 2 do
  if members[i] ~= '#' and is_quiet(members[i + 1]) and #found < 1000 then
    found[#found + 1] = redis.call('HGET', P .. 'j:' .. members[i], ARGV[5])
  end
end
return found
