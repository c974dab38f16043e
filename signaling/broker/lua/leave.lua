-- Leave a room. ARGV: owner, session, room, reason, request. Gives 'done', 'gone' or 'absent'.
local owner, session, room, reason, request = unpack(ARGV, 5)
if not owned(session, owner) then
  return 'gone'
end
if done_before(session, request) then
  return 'done'
end
if redis.call('HEXISTS', P .. 'j:' .. session, room) == 0 then
  return 'absent'
end
depart(session, room, reason)
remember(session, request)
return 'done'
