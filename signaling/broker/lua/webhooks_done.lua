-- Events are delivered, or given up. ARGV: ids.
for i = 5, #ARGV do
  redis.call('ZREM', Q .. 'due', ARGV[i])
  redis.call('HDEL', Q .. 'event', ARGV[i])
  redis.call('HDEL', Q .. 'tries', ARGV[i])
end
