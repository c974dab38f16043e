-- Enter a room: capacity, order (and by it the roles) and presence in one step.
-- ARGV: owner, session, room, identity, capacity, "q" for a quiet member, ticket.
-- Gives {own order, {order, suspended, identity, …} of the others, wake-ups of the caller's node},
-- 'gone' or 'full'.
local owner, session, room, identity, capacity, quiet = unpack(ARGV, 5, 10)
ticket = ARGV[11]
if not owned(session, owner) then
  return 'gone'
end
local members = P .. 'r:' .. room
local order = redis.call('HGET', members, session)
if not order then
  if math.max(0, redis.call('HLEN', members) - 1) >= tonumber(capacity) then
    return 'full'
  end
  if redis.call('EXISTS', members) == 0 then
    note('room.opened', room_alone(identity))
  end
  order = redis.call('HINCRBY', members, '#', 1) .. quiet
  redis.call('HSET', members, session, order)
  redis.call('HSET', P .. 'j:' .. session, room, identity)
  keep(members, LIFE)
  keep(P .. 'j:' .. session, LIFE)
  tell(room, session, order, identity, 'join', '')
elseif redis.call('HGET', P .. 'j:' .. session, room) ~= identity then
  redis.call('HSET', P .. 'j:' .. session, room, identity)
  tell(room, session, order, identity, 'update', '')
end
if is_quiet(order) then
  return { 0, {}, here }
end
local others, found = {}, redis.call('HGETALL', members)
for i = 1, #found, 2 do
  local other = found[i]
  if other ~= session and other ~= '#' and not is_quiet(found[i + 1]) then
    others[#others + 1] = tonumber(found[i + 1])
    others[#others + 1] = redis.call('HGET', P .. 's:' .. other, 'owner') == '' and 1 or 0
    others[#others + 1] = redis.call('HGET', P .. 'j:' .. other, room)
  end
end
return { tonumber(order), others, here }
