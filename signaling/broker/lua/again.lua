-- Redis is back: what a session asked its node for meanwhile, for those who may not have it. Who
-- was handed it by that node gets a copy whatever else waits for it: its mailbox drops one of the two
-- (see reconcile), or its session has moved, and has this one.
-- ARGV: session, secret's hash, epoch, request, body, tag, {peer, "handed" or ""}, ….
-- Gives 'sent', 'kept' (it was done before), 'absent' (nobody is there) or 'gone'.
local session, secret, held, request, body, tag = unpack(ARGV, 5, 10)
local found = redis.call('HMGET', P .. 's:' .. session, 'secret', 'epoch', 'owner')
if found[1] ~= secret or not still_held(found[2], found[3], held) then
  return 'gone'
end
if done_before(session, request) then
  return 'kept'
end
local outcome = 'absent'
for i = 11, #ARGV, 2 do
  local recipient = redis.call('GET', P .. 'p:' .. ARGV[i])
  if recipient and share_room(session, recipient) then
    outcome = 'sent'
    if ARGV[i + 1] == 'handed' then
      post(recipient, body, tag, true)
    else
      post_or_break(recipient, body, tag)
    end
  end
end
remember(session, request)
return outcome
