-- A node is alive: take or renew its lease, and wake it as proof that it can be woken.
-- ARGV: lease in ms. Gives 1, or 0 where the lease had ended, so that its sessions may be others'.
local time = now()
local lease = redis.call('ZSCORE', P .. 'n', NODE)
redis.call('ZADD', P .. 'n', time + ARGV[5], NODE)
for _, key in ipairs({ 'n', 'x', 'o:' .. NODE }) do
  keep(P .. key, LIFE)
end
wake(NODE, 't')
return (lease and tonumber(lease) >= time) and 1 or 0
