-- Redis is back: put what a node handed to a session's socket meanwhile into its mailbox, before what
-- came there meanwhile, which nobody has seen yet and which gets other numbers. A message that is
-- in both (its answer was lost, or the sender went to another node) is in it once.
-- ARGV: session, secret's hash, epoch, last seq before, acknowledged, last seq handed on,
-- how many {seq, body, tag}, how many requests of its own; these, oldest first, which are done; those;
-- how many tags, those of what a sender may ask for again, oldest first, and then those of all
-- else that was handed on.
-- Gives 1, or 0 where the session is not this node's any more. Again: the same, also where the
-- client has acknowledged more, or was handed more, since.
local session, secret, held, base, acked, top, count, own = unpack(ARGV, 5, 12)
local key, mailbox = P .. 's:' .. session, P .. 'm:' .. session
local found = redis.call('HMGET', key, 'secret', 'epoch', 'seq', 'owner', 'broken')
base = tonumber(base)
if found[1] ~= secret or not still_held(found[2], found[4], held) or found[5]
    or base > tonumber(found[3]) then
  return 0
end
local first = 13 + own
local after = first + 3 * count
local handed = {}
for i = first + 2, after - 1, 3 do
  handed[ARGV[i]] = true
end
for i = after + 1, #ARGV do
  handed[ARGV[i]] = true
end
local before, meanwhile = {}, {}
for _, entry in ipairs(redis.call('XRANGE', mailbox, '-', '+')) do
  local seq, text, tag = string.match(entry[1], '^%d+'), entry[2][2], entry[2][4]
  if tonumber(seq) <= base then
    before[#before + 1] = { seq, text, tag }
  elseif not handed[tag or ''] then
    meanwhile[#meanwhile + 1] = { string.match(text, '^(.*:)%d+}$'), tag }
  end
end
redis.call('DEL', mailbox)
local bytes = 0
local function put(seq, text, tag)
  if tag then
    redis.call('XADD', mailbox, seq .. '-0', 'e', text, 'q', tag)
  else
    redis.call('XADD', mailbox, seq .. '-0', 'e', text)
  end
  bytes = bytes + #text
end
for _, entry in ipairs(before) do
  put(unpack(entry, 1, 3))
end
for i = first, after - 1, 3 do
  put(ARGV[i], ARGV[i + 1] .. ARGV[i] .. '}', ARGV[i + 2])
end
for i = 13, first - 1 do
  if not done_before(session, ARGV[i]) then
    remember(session, ARGV[i])
  end
end
local seq = tonumber(top)
for _, entry in ipairs(meanwhile) do
  seq = seq + 1
  put(seq, entry[1] .. seq .. '}', entry[2])
end
redis.call('HSET', key, 'seq', seq, 'bytes', bytes)
keep(mailbox, math.max(LIFE, redis.call('PTTL', key)))
for i = after + 1, after + tonumber(ARGV[after]) do
  local sender, request = string.match(ARGV[i], '^(%S+) (.*)$')
  if sender and redis.call('EXISTS', P .. 's:' .. sender) == 1 and not done_before(sender, request) then
    remember(sender, request)
  end
end
acknowledge(session, tonumber(acked))
return 1
