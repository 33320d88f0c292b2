"""The protocol without the network: MQTT 3.1, 3.1.1 and 5, as bytes in and bytes out.

Four layers, each ignorant of the one above:

    framer       a stream of bytes  → whole packets, bounded
    codec        one packet         ⇄ bytes (wire, reason and property are its tables)
    connection   what one network connection may send now, and when it is dead
    session      QoS in both directions; outlives connections

Nothing in here waits, opens, logs or looks at a clock: time is an argument, and
facts are return values. Above all nothing in here acknowledges by itself: only
the code that has seen the commit can ask for a PUBACK.

Wherever bytes are read there are three answers, never two: a value, *need more*
(`None`, or nothing yet), or `MalformedPacket` with the MQTT 5 reason code to say
so with.

Versions are the protocol levels of CONNECT: 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5.
Tags such as [MQTT-3.3.1-2] name the clause obeyed; where the two specifications
number it differently, the tag says v3 or v5.

Left out on purpose: enhanced authentication (a CONNECT that asks for it is to be
refused with 0x8C, and AUTH is in no row of the table).
"""
