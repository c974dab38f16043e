-- Take events that are due, for a while: who takes them and dies leaves them to the next.
-- ARGV: how many, for how many ms. Gives {id, tries, event, …}.
local time, taken = now(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', Q .. 'due', '-inf', time, 'LIMIT', 0, ARGV[5])) do
  local event = redis.call('HGET', Q .. 'event', id)
  if event then
    redis.call('ZADD', Q .. 'due', time + ARGV[6], id)
    taken[#taken + 1] = id
    taken[#taken + 1] = redis.call('HINCRBY', Q .. 'tries', id, 1)
    taken[#taken + 1] = event
    keep(Q .. 'tries', WAITING_LIFE)
  else
    redis.call('ZREM', Q .. 'due', id)
  end
end
return taken
