-- Begin a session at this node. ARGV: session, record, peer, secret's hash, window in ms, user as JSON.
-- Gives its epoch, or 0 where a session of that name lives already.
local session, record, peer, secret, window, user = unpack(ARGV, 5)
local key = P .. 's:' .. session
if redis.call('EXISTS', key) == 1 then
  return 0
end
redis.call('HSET', key, 'rec', record, 'peer', peer, 'secret', secret, 'window', window, 'user', user,
  'owner', NODE .. ':1', 'epoch', 1, 'seq', 0, 'acked', 0, 'bytes', 0)
redis.call('SET', P .. 'p:' .. peer, session, 'PX', LIFE)
redis.call('SADD', P .. 'o:' .. NODE, session)
keep(key, LIFE)
keep(P .. 'o:' .. NODE, LIFE)
return 1
