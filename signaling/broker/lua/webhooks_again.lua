-- An event could not be delivered: try again. ARGV: id, in how many ms.
redis.call('ZADD', Q .. 'due', 'XX', now() + ARGV[6], ARGV[5])
