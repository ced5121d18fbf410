"""The agent's side of the channel: it dials, says who it is, keeps the lease, and carries frames both ways.

One connection at a time, one session per connection, one writer per session. `dialer` decides when to try again, `pump` runs a
session over a connection, `lanes` decides what goes next, `inbox` applies what the coordinator wants in the order it came.
"""
