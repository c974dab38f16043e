-- An event for everyone who shares a room with the sender, once each.
-- ARGV: owner, session, request, body, ticket, tag.
-- Gives {'sent' or 'kept' (somebody is suspended), wake-ups of the caller's node}, or 'gone'.
local owner, session, request, body = unpack(ARGV, 5, 8)
ticket = ARGV[9]
if not owned(session, owner) then
  return 'gone'
end
if done_before(session, request) then
  return { 'kept', 0 }
end
local outcome, told = 'sent', { ['#'] = true, [session] = true }
for _, room in ipairs(rooms_of(session)) do
  local members = redis.call('HGETALL', P .. 'r:' .. room)
  for i = 1, #members, 2 do
    local other = members[i]
    if not told[other] and not is_quiet(members[i + 1]) then
      told[other] = true
      if post_or_break(other, body, ARGV[10]) ~= 'sent' then
        outcome = 'kept'
      end
    end
  end
end
remember(session, request)
return { outcome, here }
