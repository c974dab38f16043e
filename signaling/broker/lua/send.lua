-- An event for one peer who shares a room with the sender.
-- ARGV: owner, session, peer, request, body, "now" where it must not wait for a suspended one, ticket, tag.
-- Gives 'here' (the caller's node is woken), 'sent', 'kept', 'full', 'absent' or 'gone'.
local owner, session, peer, request, body, now_or_not = unpack(ARGV, 5, 10)
ticket = ARGV[11]
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
if now_or_not == 'now' and redis.call('HGET', P .. 's:' .. recipient, 'owner') == '' then
  return 'absent'
end
if not share_room(session, recipient) then
  return 'absent'
end
local outcome = post(recipient, body, ARGV[12])
if outcome ~= 'full' then
  remember(session, request)
end
return here > 0 and 'here' or outcome
