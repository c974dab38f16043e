-- A user is revoked, or restored: end its sessions that are away, tell every node.
-- ARGV: user, user as JSON, until, spent (both 0: restored), how many ms that is to be kept.
-- The user is a field of a hash, never a part of a key.
local user, text, till, spent, life = unpack(ARGV, 5)
if tonumber(till) == 0 and tonumber(spent) > 0 then
  local before = redis.call('HGET', B, user) -- credentials are spent, and what held goes on
  till = before and string.format('%.3f', cjson.decode(before)['until']) or till
end
local revocation = '{"user":' .. text .. ',"until":' .. till .. ',"spent":' .. spent .. '}'
if tonumber(life) > 0 then
  redis.call('HSET', B, user, revocation)
  keep(B, tonumber(life) + LIFE)
else
  redis.call('HDEL', B, user)
end
if tonumber(till) > 0 then
  for _, session in ipairs(redis.call('ZRANGE', P .. 'x', 0, -1)) do
    if redis.call('HGET', P .. 's:' .. session, 'user') == text then
      close(session, 'revoked')
    end
  end
end
for _, node in ipairs(redis.call('ZRANGE', P .. 'n', 0, -1)) do
  wake(node, 'r ' .. revocation)
end
