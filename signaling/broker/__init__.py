"""Where rooms, sessions and mailboxes live: in this process, or in what all nodes share."""
