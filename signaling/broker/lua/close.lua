-- A client of this node leaves for good. ARGV: owner, session, reason.
if owned(ARGV[6], ARGV[5]) then
  close(ARGV[6], ARGV[7])
end
