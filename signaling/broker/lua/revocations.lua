-- What is revoked, for a node that may have missed it; what is over is forgotten.
-- ARGV: Unix time in seconds. Gives JSON of each.
local found = {}
local all = redis.call('HGETALL', B)
for i = 1, #all, 2 do
  local revocation = cjson.decode(all[i + 1])
  if math.max(revocation['until'], revocation['spent']) > tonumber(ARGV[5]) then
    found[#found + 1] = all[i + 1]
  else
    redis.call('HDEL', B, all[i])
  end
end
return found
