-- What every script begins with. KEYS[1] is the prefix of all keys, with the one hash tag of this
-- broker, so that a room, its members and their mailboxes are one slot and change in one step.
--
--   s:SESSION  hash    rec, peer, secret, window · owner "NODE:EPOCH", "" while suspended · epoch
--                      seq (newest event), acked, bytes (in the mailbox), broken
--   m:SESSION  stream  the mailbox; an entry's id is SEQ-0, its field e the text frame, q what
--                      the sender's node knows it by (see reconcile)
--   j:SESSION  hash    room → what others are told of the member, as JSON without its braces
--   d:SESSION  list    ids of recent requests, newest first: a retry is done once, on any node
--   p:PEER     string  the session
--   r:ROOM     hash    session → order of joining, "q" behind it for a quiet member;
--                      "#" the counter of joins
--   o:NODE     set     the sessions whose sockets it holds
--   g          hash    run id of the server that has the data, name of its generation; of none itself
--   b          hash    user → what was revoked of it, as JSON; of no generation either (B)
--   w:…        what became of rooms and peers, for webhooks, where there are any; not of one
--              generation (see Q), so that it outlives a restart with its data:
--              w:due zset ids by when they are due, in ms · w:event hash id → JSON ·
--              w:tries hash id → deliveries tried · w:count string ·
--              w:lost while what happens is not kept
--   n          zset    nodes by the end of their lease, in ms
--   h          hash    node → the name of its machine, for operators
--   x          zset    suspended sessions by the end of their resume window, in ms
--   n:NODE     channel what wakes a node: "e SESSION SEQ TEXT", "x SESSION WHY OWNER", "t",
--                      "m TICKET SESSION SEQ TEXT" where a script of its own is the cause
--
-- ROOM is a hash, SESSION, PEER and NODE are tokens of ours: nothing of a user is in a key.

local P = KEYS[1]
local NODE = ARGV[1]
local MOST_MESSAGES, MOST_BYTES = tonumber(ARGV[2]), tonumber(ARGV[3])
local LIFE = tonumber(ARGV[4]) -- ms that a key outlives its last refresh
local MOST_REQUESTS = 256
local TAG = string.match(P, '^{[^}]*}:')
local Q = TAG .. 'w:'
local B = TAG .. 'b'
local G = TAG .. 'g'
local MOST_WAITING = 10000 -- events for webhooks; the last place is for the news that more happened
local WAITING_LIFE = 9 * 3600 * 1000
local ticket = '' -- of a call whose node waits for what it causes there
local here = 0 -- wake-ups that carry it
local posted = 0 -- events of this call: what bounds the time that it takes

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A key lives at least ``ms`` longer; a key that is not there stays so.
local function keep(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, ms)
  end
end

local function keep_session(session, ms)
  for _, kind in ipairs({ 's:', 'm:', 'j:', 'd:' }) do
    keep(P .. kind .. session, ms)
  end
  keep(P .. 'p:' .. redis.call('HGET', P .. 's:' .. session, 'peer'), ms)
  for _, room in ipairs(redis.call('HKEYS', P .. 'j:' .. session)) do
    keep(P .. 'r:' .. room, ms)
  end
end

local function wake(node, what)
  redis.call('SPUBLISH', P .. 'n:' .. node, what)
end

local function node_of(owner)
  return string.match(owner, '^[^:]*')
end

-- Whether the caller still owns the session: what a node that slept says is not heard (fencing).
local function owned(session, owner)
  return redis.call('HGET', P .. 's:' .. session, 'owner') == owner and owner ~= ''
end

-- Whether a session is still the caller's, which held it with the epoch ``held``: nobody has attached it
-- since, or the caller alone has, once, and the answer was lost.
local function still_held(epoch, owner, held)
  return epoch == held or (epoch == string.format('%.0f', held + 1) and node_of(owner) == NODE)
end

-- Number an event, keep it, wake the recipient's node.
-- ``tag``: what the sender's node knows it by, or nothing. ``whatever``: keep it, however much is there.
-- Gives 'sent', 'kept' (suspended), 'full' (nothing was kept) or 'absent'.
local function post(session, body, tag, whatever)
  local key, mailbox = P .. 's:' .. session, P .. 'm:' .. session
  local found = redis.call('HMGET', key, 'owner', 'seq', 'bytes')
  if not found[1] then
    return 'absent'
  end
  local seq = found[2] + 1
  local text = body .. seq .. '}'
  local bytes = found[3] + #text
  if not whatever and (redis.call('XLEN', mailbox) >= MOST_MESSAGES or bytes > MOST_BYTES) then
    return 'full'
  end
  if tag then
    redis.call('XADD', mailbox, seq .. '-0', 'e', text, 'q', tag)
  else
    redis.call('XADD', mailbox, seq .. '-0', 'e', text)
  end
  redis.call('HSET', key, 'seq', seq, 'bytes', bytes)
  keep(mailbox, math.max(LIFE, redis.call('PTTL', key)))
  posted = posted + 1
  if found[1] == '' then
    return 'kept'
  end
  local node, what = node_of(found[1]), session .. ' ' .. seq .. ' ' .. text
  if ticket ~= '' and node == NODE then
    here = here + 1
    wake(node, 'm ' .. ticket .. ' ' .. what)
  else
    wake(node, 'e ' .. what)
  end
  return 'sent'
end

-- Post, or remember that a resume would hide a loss, and have a reader that is this slow cut.
local function post_or_break(session, body, tag)
  local outcome = post(session, body, tag)
  if outcome == 'full' then
    local owner = redis.call('HGET', P .. 's:' .. session, 'owner')
    redis.call('HSET', P .. 's:' .. session, 'broken', 1)
    if owner ~= '' then
      wake(node_of(owner), 'x ' .. session .. ' slow ' .. owner)
    end
  end
  return outcome
end

-- Keep what happened for the webhooks. ``data``: the inside of a JSON object.
local function note(kind, data)
  if not WEBHOOKS then
    return
  end
  local waiting = redis.call('ZCARD', Q .. 'due')
  if 2 * waiting < MOST_WAITING then
    redis.call('DEL', Q .. 'lost')
  elseif redis.call('EXISTS', Q .. 'lost') == 1 then
    return
  elseif waiting >= MOST_WAITING - 1 then
    redis.call('SET', Q .. 'lost', 1, 'PX', WAITING_LIFE)
    kind, data = 'events.lost', '"room":""'
  end
  local time = redis.call('TIME')
  local number = redis.call('INCR', Q .. 'count')
  local ms = time[1] * 1000 + math.floor(time[2] / 1000)
  -- The time keeps ids apart where the count was rolled back to an older copy of the data.
  local id = string.format('%.0f-%012d', ms, number)
  local event = '{"type":"' .. kind .. '","at":' .. string.format('%.0f', ms) .. ',"data":{' .. data .. '}}'
  redis.call('ZADD', Q .. 'due', ms, id)
  redis.call('HSET', Q .. 'event', id, event)
  for _, key in ipairs({ 'due', 'event', 'count' }) do
    keep(Q .. key, WAITING_LIFE)
  end
end

local PAST = {
  join = 'joined', leave = 'left', suspended = 'suspended', resumed = 'resumed', update = 'updated',
}

-- Whether an order is that of a quiet member: nobody is told of it, nor it of anybody.
local function is_quiet(order)
  return string.sub(order, -1) == 'q'
end

-- Whether two sessions see one another in a room: both quiet there, or neither.
local function share_room(session, other)
  for _, room in ipairs(redis.call('HKEYS', P .. 'j:' .. session)) do
    local orders = redis.call('HMGET', P .. 'r:' .. room, session, other)
    if orders[1] and orders[2] and is_quiet(orders[1]) == is_quiet(orders[2]) then
      return true
    end
  end
  return false
end

-- Tell everyone else in a room what became of a member.
local function tell(room, session, order, identity, event, reason)
  if WEBHOOKS then
    local user = redis.call('HGET', P .. 's:' .. session, 'user')
    note('peer.' .. PAST[event], identity .. ',"user":' .. user .. ',"reason":"' .. reason .. '"')
  end
  if is_quiet(order) then
    return
  end
  local head = '{"type":"peer","event":"' .. event .. '",' .. identity .. ',"polite":'
  local tail = ',"reason":"' .. reason .. '","seq":'
  local members = redis.call('HGETALL', P .. 'r:' .. room)
  for i = 1, #members, 2 do
    if members[i] ~= session and members[i] ~= '#' and not is_quiet(members[i + 1]) then
      -- Who was there first is polite.
      local polite = tostring(tonumber(members[i + 1]) < tonumber(order))
      post_or_break(members[i], head .. polite .. tail)
    end
  end
end

local function rooms_of(session)
  local rooms = redis.call('HKEYS', P .. 'j:' .. session)
  table.sort(rooms)
  return rooms
end

local function tell_rooms(session, event)
  for _, room in ipairs(rooms_of(session)) do
    local order = redis.call('HGET', P .. 'r:' .. room, session)
    local identity = redis.call('HGET', P .. 'j:' .. session, room)
    tell(room, session, order, identity, event, '')
  end
end

-- Of an identity only the name of the room, which comes first.
local function room_alone(identity)
  return string.sub(identity, 1, string.find(identity, ',"id":', 1, true) - 1)
end

local function depart(session, room, reason)
  local members, memberships = P .. 'r:' .. room, P .. 'j:' .. session
  local order = redis.call('HGET', members, session)
  local identity = redis.call('HGET', memberships, room)
  redis.call('HDEL', members, session)
  redis.call('HDEL', memberships, room)
  tell(room, session, order, identity, 'leave', reason)
  if redis.call('HLEN', members) == 1 then
    redis.call('DEL', members) -- only the counter is left
    note('room.closed', room_alone(identity))
  end
end

local function acknowledge(session, seq)
  local key, mailbox = P .. 's:' .. session, P .. 'm:' .. session
  local found = redis.call('HMGET', key, 'seq', 'acked', 'bytes')
  if seq > tonumber(found[1]) or seq <= tonumber(found[2]) then
    return
  end
  local bytes = tonumber(found[3])
  for _, entry in ipairs(redis.call('XRANGE', mailbox, '-', seq .. '-0')) do
    bytes = bytes - #entry[2][2]
  end
  redis.call('XTRIM', mailbox, 'MINID', (seq + 1) .. '-0')
  redis.call('HSET', key, 'acked', seq, 'bytes', bytes)
end

-- The socket is lost: tell the rooms, let the resume window begin. Again: nothing happens.
local function suspend(session)
  local key = P .. 's:' .. session
  local found = redis.call('HMGET', key, 'owner', 'window')
  if not found[1] or found[1] == '' then
    return
  end
  local window = tonumber(found[2])
  redis.call('SREM', P .. 'o:' .. node_of(found[1]), session)
  redis.call('HSET', key, 'owner', '')
  redis.call('ZADD', P .. 'x', now() + window, session)
  keep(P .. 'x', window + LIFE)
  keep_session(session, window + LIFE)
  tell_rooms(session, 'suspended')
end

-- End a session: one leave in each room. Again: nothing happens.
local function close(session, reason)
  local key = P .. 's:' .. session
  local found = redis.call('HMGET', key, 'owner', 'peer')
  redis.call('ZREM', P .. 'x', session)
  if not found[1] then
    return
  end
  for _, room in ipairs(rooms_of(session)) do
    depart(session, room, reason)
  end
  redis.call('SREM', P .. 'o:' .. node_of(found[1]), session)
  redis.call('DEL', key, P .. 'm:' .. session, P .. 'j:' .. session, P .. 'd:' .. session,
    P .. 'p:' .. found[2])
end

-- Whether a request was done already; remember() says that it was.
local function done_before(session, request)
  return request ~= '' and redis.call('LPOS', P .. 'd:' .. session, request)
end

local function remember(session, request)
  if request ~= '' then
    local key = P .. 'd:' .. session
    redis.call('LPUSH', key, request)
    redis.call('LTRIM', key, 0, MOST_REQUESTS - 1)
    keep(key, LIFE)
  end
end
