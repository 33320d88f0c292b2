"""From another broker to this one: its configuration read, and ours written.

    mosquitto.conf → settings (conf) → what they amount to (mosquitto) → values and notes (equivalent)
                                            ACL file → rules (acl)  ↗       → YAML (text)

What comes out is read by whoever runs the gateway, not by a program: each setting
that has no equivalent is named at the top, with the line it stood in and with what
happens instead. Where the two cannot be made to agree about who may do what, the
result lets in less than Mosquitto did, never more.
"""

from bridge.migrate.importer import Imported, import_mosquitto

__all__ = ["Imported", "import_mosquitto"]
