"""Our external addresses behind 1:1 NAT, as STUN servers see them."""
