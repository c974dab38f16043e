-- A node stops: its sessions are suspended now, without waiting for its lease to end.
-- Gives the number of sessions that are still to be suspended.
for _, session in ipairs(redis.call('SRANDMEMBER', P .. 'o:' .. NODE, 50)) do
  if posted < 500 then
    suspend(session)
  end
end
local left = redis.call('SCARD', P .. 'o:' .. NODE)
if left == 0 then
  redis.call('ZREM', P .. 'n', NODE)
  redis.call('HDEL', P .. 'h', NODE)
end
return left
