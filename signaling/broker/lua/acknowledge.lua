-- Everything up to a number has arrived. ARGV: owner, session, seq.
if owned(ARGV[6], ARGV[5]) then
  acknowledge(ARGV[6], tonumber(ARGV[7]))
end
