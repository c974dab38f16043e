-- The nodes that live: {id, name, sessions whose sockets it holds, …}.
local found = {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', P .. 'n', now(), '+inf')) do
  found[#found + 1] = node
  found[#found + 1] = redis.call('HGET', P .. 'h', node) or ''
  found[#found + 1] = redis.call('SCARD', P .. 'o:' .. node)
end
return found
