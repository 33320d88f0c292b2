"""What the operator may see: a status document, metrics, and log lines.

Counters are plain integers on the objects that do the work; this package only
reads them, when someone asks.
"""
