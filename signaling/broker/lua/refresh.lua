-- The sessions of this node go on living. ARGV: sessions.
for i = 5, #ARGV do
  if redis.call('EXISTS', P .. 's:' .. ARGV[i]) == 1 then
    keep_session(ARGV[i], LIFE)
  end
end
