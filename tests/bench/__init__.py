"""Benchmarks: the gateway and its peers under the same loads, on this machine, one after another.

    loads.py      what is sent                      LOADS: a line each
    servers.py    whom it is sent to                SERVERS: a class each
    load.py       the generator, a process of its own
    rounds.py     A B C A B C …, a fresh server every time
    report.py     medians, ratios, the table, the JSON

Other work on the machine hits all servers of one round alike, so a ratio is taken
inside a round, and the median over rounds is what counts. Absolute figures are only
as good as the machine was quiet.
"""
