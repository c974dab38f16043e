-- Attach a session to this node, from wherever it was: the next epoch, and what was missed.
-- ARGV: session, secret's hash, last seq that the client has seen, epoch.
-- A client comes back with epoch "": what it has seen is acknowledged by that; with seq "" it does
-- not know, and goes on after what was acknowledged. A node that was
-- cut off names the epoch it held, and takes back only what nobody took over since; what it
-- handed to the socket is not yet acknowledged. Again, because the answer was lost: the same.
-- Gives {record, epoch, memberships, {seq, text, …}, seq, the peers in each of its rooms}, or nothing
-- where it cannot go on. A node that takes back knows the peers.
local session, secret, seq, held = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]
local key, mailbox = P .. 's:' .. session, P .. 'm:' .. session
local found = redis.call('HMGET', key, 'secret', 'owner', 'epoch', 'seq', 'acked', 'broken', 'rec')
if not found[1] or found[1] ~= secret or (held ~= '' and not still_held(found[3], found[2], held)) then
  return nil
end
seq = seq or tonumber(found[5])
if found[6] or seq < tonumber(found[5]) or seq > tonumber(found[4]) then
  close(session, 'lost')
  if found[2] ~= '' then
    wake(node_of(found[2]), 'x ' .. session .. ' over ' .. found[2])
  end
  return nil
end
if held == '' then
  acknowledge(session, seq)
end
local epoch, before = (held == '' and found[3] or held) + 1, found[2]
redis.call('HSET', key, 'owner', NODE .. ':' .. epoch, 'epoch', epoch)
if before ~= '' and node_of(before) ~= NODE then
  redis.call('SREM', P .. 'o:' .. node_of(before), session)
  wake(node_of(before), 'x ' .. session .. ' taken ' .. before)
end
redis.call('ZREM', P .. 'x', session)
redis.call('SADD', P .. 'o:' .. NODE, session)
keep(P .. 'o:' .. NODE, LIFE)
keep_session(session, LIFE)
-- Whom a member sees in a room, and itself; a quiet one sees nobody.
local function peers_in(room, member)
  local members, peers = redis.call('HGETALL', P .. 'r:' .. room), {}
  for i = 1, #members, 2 do
    if members[i] ~= '#' and not is_quiet(members[i + 1]) then
      peers[#peers + 1] = redis.call('HGET', P .. 's:' .. members[i], 'peer') or nil
    elseif members[i] == member then
      return {}
    end
  end
  return peers
end
local missed = {}
for _, entry in ipairs(redis.call('XRANGE', mailbox, (seq + 1) .. '-0', '+')) do
  missed[#missed + 1] = string.match(entry[1], '^%d+')
  missed[#missed + 1] = entry[2][2]
end
if before == '' then
  tell_rooms(session, 'resumed')
end
local peers = {} -- in the order of HVALS
for _, room in ipairs(held == '' and redis.call('HKEYS', P .. 'j:' .. session) or {}) do
  peers[#peers + 1] = peers_in(room, session)
end
return { found[7], epoch, redis.call('HVALS', P .. 'j:' .. session), missed, seq, peers }
