"""An application's back end over HTTP, as both services ask it and tell it (signed POSTs)."""
