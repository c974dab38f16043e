-- A node is alive: take or renew its lease, and wake it as proof that it can be woken.
-- ARGV: lease in ms, the server's run id, our machine's name. Gives 1, or 0 where the lease had ended, so that its sessions may be others'.
local time = now()
local lease = redis.call('ZSCORE', P .. 'n', NODE)
redis.call('ZADD', P .. 'n', time + ARGV[5], NODE)
redis.call('HSET', P .. 'h', NODE, ARGV[7] or '')
for _, key in ipairs({ 'n', 'h', 'x', 'o:' .. NODE }) do
  keep(P .. key, LIFE)
end
if redis.call('EXISTS', G) == 0 then -- someone emptied the database: this goes on being the one
  redis.call('HSET', G, 'run', ARGV[6], 'name', string.match(P, '([^:]*):$'))
end
keep(G, LIFE)
wake(NODE, 't')
return (lease and tonumber(lease) >= time) and 1 or 0
