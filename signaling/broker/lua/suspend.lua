-- A socket of this node is lost. ARGV: owner, session.
if owned(ARGV[6], ARGV[5]) then
  suspend(ARGV[6])
end
