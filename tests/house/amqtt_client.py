"""amqtt's own client against a gateway; run by the interpreter that has amqtt, with the port as argument."""

import asyncio
import sys

from amqtt.client import MQTTClient
from amqtt.mqtt.constants import QOS_0, QOS_1, QOS_2

PORT = int(sys.argv[1])
COUNT = 5


async def main() -> None:
    hears = MQTTClient("hears", config={"auto_reconnect": False})
    says = MQTTClient("says", config={"auto_reconnect": False})
    for client in (hears, says):
        await client.connect(f"mqtt://127.0.0.1:{PORT}/")
    levels = (QOS_0, QOS_1, QOS_2)
    await hears.subscribe([(f"amqtt/{qos}", qos) for qos in levels])
    for qos in levels:
        for nth in range(COUNT):
            await says.publish(f"amqtt/{qos}", f"{qos}-{nth}".encode(), qos=qos)
        for nth in range(COUNT):
            message = await hears.deliver_message(timeout_duration=10)
            assert bytes(message.data).decode() == f"{qos}-{nth}", message.data
    for client in (hears, says):
        await client.disconnect()
    print("all of it arrived")


asyncio.run(main())
