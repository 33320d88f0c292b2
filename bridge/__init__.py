"""edgespool: an MQTT broker that keeps what it was given and hands it on.

The house has floors, and a floor imports only from the floors below it:

    4  app, cli, config, observe, web      the house itself
    3  broker, forward                     motion: the device side, the cloud side
    2  private, store, sinks               hands: each touches one thing in the world
    1  mqtt, policy                        rules: they decide and touch nothing
    0  errors, message, topic              words: values and their names

Packages on one floor are strangers. Floors 0 and 1 know no clock, no socket and
no luck: time and random numbers are arguments. `tests/test_architecture.py`
keeps all of this true.
"""

__version__ = "0.1.0"
