"""Rules about messages: they decide and touch nothing.

    units           `200ms`, `256KiB`: values with their unit
    spelling        "did you mean"
    template        `{line}.{machine}.telemetry` → an address
    route           which messages, to which sink, under which address, for how long
    subscriptions   Topic Name → who subscribed to it
    batch           when a batch is full: count, bytes, age
    backoff         how long to wait before trying again

Time and luck are arguments, so every rule can be tested at any hour and with any
luck.
"""
