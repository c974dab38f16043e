-- This node may own a session that it does not know of, because an answer to it was lost: suspend
-- it, as if its socket were lost. ARGV: session.
local owner = redis.call('HGET', P .. 's:' .. ARGV[5], 'owner')
if owner and owner ~= '' and node_of(owner) == NODE then
  suspend(ARGV[5])
end
