-- End what is over: suspend the sessions of dead nodes, close those whose resume window has ended.
-- One step whoever calls, so that each is suspended once and leaves once.
-- Gives {sessions closed, 1 where more is to be done}.
local time, closed, more = now(), 0, 0
for _, node in ipairs(redis.call('ZRANGEBYSCORE', P .. 'n', '-inf', time - 1)) do
  for _, session in ipairs(redis.call('SRANDMEMBER', P .. 'o:' .. node, 50)) do
    if posted < 500 then
      suspend(session)
      redis.call('SREM', P .. 'o:' .. node, session) -- also one whose keys are gone
    end
  end
  if redis.call('SCARD', P .. 'o:' .. node) == 0 then
    redis.call('ZREM', P .. 'n', node)
    redis.call('HDEL', P .. 'h', node)
  else
    more = 1
  end
end
for _, session in ipairs(redis.call('ZRANGEBYSCORE', P .. 'x', '-inf', time, 'LIMIT', 0, 50)) do
  if posted >= 500 then
    more = 1
    break
  end
  close(session, 'timeout')
  closed = closed + 1
end
if closed == 50 then
  more = 1
end
return { closed, more }
