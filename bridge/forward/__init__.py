"""The cloud side: from the uplink log to a sink.

A `Keeper` holds one sink open. A `Forwarder` is one route in motion: it reads
the log from its cursor, hands batches to the sink and moves the cursor over what
is settled. `Room` makes way when the log is full, by the routes' own rules. None
of them knows that there is a broker.
"""
