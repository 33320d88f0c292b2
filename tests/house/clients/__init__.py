"""The MQTT clients that people use, each behind the same few words: see `base`."""
