-- An event for one peer who shares a room with the sender.
-- ARGV: owner, session, peer, request, body. Gives 'sent', 'kept', 'full', 'absent' or 'gone'.
local owner, session, peer, request, body = unpack(ARGV, 5)
if not owned(session, owner) then
  return 'gone'
end
if done_before(session, request) then
  return 'kept'
end
local recipient = redis.call('GET', P .. 'p:' .. peer)
if not recipient or recipient == session then
  return 'absent'
end
for _, room in ipairs(redis.call('HKEYS', P .. 'j:' .. session)) do
  if redis.call('HEXISTS', P .. 'r:' .. room, recipient) == 1 then
    local outcome = post(recipient, body)
    if outcome ~= 'full' then
      remember(session, request)
    end
    return outcome
  end
end
return 'absent'
