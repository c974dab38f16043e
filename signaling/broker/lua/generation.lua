-- The name of this server's generation of our data. A server that did not have the data before
-- may have less than was acknowledged, and begins another one; so does the first of two between
-- which a slot goes to and fro: what it had when it left is not what there is now.
-- ARGV: the server's run id, a name for a new generation. KEYS[1] is the hash tag alone.
if redis.call('HGET', G, 'run') ~= ARGV[5] then
  redis.call('HSET', G, 'run', ARGV[5], 'name', ARGV[6])
end
keep(G, LIFE)
return redis.call('HGET', G, 'name')
