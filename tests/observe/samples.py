"""Status documents for tests: a house in the middle of an outage."""

from bridge.observe.status import CommandStatus, MqttStatus, RouteStatus, SinkStatus, Status, StoreStatus

MQTT = MqttStatus(
    listeners=["mqtt://127.0.0.1:1883"],
    connections=3,
    sessions=4,
    subscriptions=5,
    received=1000,
    acknowledged=990,
    unrouted=6,
    refused=7,
    delivered=8,
    dropped=9,
    denied=11,
    retained=10,
    logins_failed=12,
    turned_away=13,
)
STORE = StoreStatus(
    path="/var/lib/edgespool",
    state="ok",
    reason="",
    bytes=123_456_789,
    max_bytes=2 * 1024**3,
    appended=990,
    commits=99,
    commit_ms=1.5,
    damaged=1,
    accepted_bytes=1000,
    written_bytes=4096,
    history_bytes=23_456,
)
STATUS = Status(
    gateway="plant-7",
    version="0.1.0",
    started_at="2025-11-23T20:00:00Z",
    uptime_s=93_784.0,
    ready=True,
    reasons=[],
    mqtt=MQTT,
    store=STORE,
    sinks={
        "cloud": SinkStatus(
            "amqp", "amqps://mq.example.com", "down", "2025-11-23T21:00:00Z", "connection refused", 3
        ),
        "lab": SinkStatus("zeromq", "tcp://127.0.0.1:5556", "up", "2025-11-23T20:00:00Z", ""),
    },
    routes={
        "telemetry": RouteStatus(
            "cloud",
            12_345,
            4_567_890,
            3723.4,
            900,
            2,
            3,
            4,
            {"full_oldest": 1, "full_newest": 0, "bound_oldest": 0, "bound_newest": 3},
            accepted=13_260,
            stored=12_345,
            filtered=5,
            undecided={"not_json": 3, "unknown": 1},
            damaged=1,
        ),
        "all": RouteStatus("lab", 0, 0, 0.0, 990, 0, 0, 0, accepted=990, durability="memory"),
    },
    dead_letters=2,
    dead_letters_by_route={"telemetry": {"no queue takes it": 2}},
    dead_letters_dropped={"telemetry": 7},
    commands={
        "setpoints": CommandStatus(
            "amqp",
            "amqps://mq.example.com queue=plant-7.commands",
            "up",
            "2025-11-23T20:00:00Z",
            "all 10000 places of prefetch are taken",
            "device",
            *(21, 22, 23, 24, 25, 26, 27, 28),
        ),
        "lamps": CommandStatus(
            "zeromq",
            "zeromq sub connect tcp://10.0.0.5:5558 (may lose commands; high-water mark 1,000)",
            "up",
            "2025-11-23T20:00:00Z",
            "",
            "stored",
            *(31, 32, 33, 34, 35, 36, 37, 38),
            lossy=True,
            lost=39,
        ),
    },
)
