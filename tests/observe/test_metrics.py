"""What Prometheus sees, read back by Prometheus' own parser."""

import time

import msgspec
import psutil
import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from bridge.observe.metrics import registry
from tests.observe.samples import STATUS

EXPECTED = [
    ("edgespool_info", {"version": "0.1.0", "gateway": "plant-7"}, 1),
    ("edgespool_ready", {}, 1),
    ("edgespool_mqtt_connections", {}, 3),
    ("edgespool_mqtt_sessions", {}, 4),
    ("edgespool_mqtt_subscriptions", {}, 5),
    ("edgespool_mqtt_received_total", {}, 1000),
    ("edgespool_mqtt_acknowledged_total", {}, 990),
    ("edgespool_mqtt_unrouted_total", {}, 6),
    ("edgespool_mqtt_refused_total", {}, 7),
    ("edgespool_mqtt_delivered_total", {}, 8),
    ("edgespool_mqtt_dropped_total", {}, 9),
    ("edgespool_mqtt_denied_total", {}, 11),
    ("edgespool_mqtt_logins_failed_total", {}, 12),
    ("edgespool_mqtt_turned_away_total", {}, 13),
    ("edgespool_mqtt_retained_messages", {}, 10),
    ("edgespool_store_ok", {}, 1),
    ("edgespool_store_bytes", {}, 123_456_789),
    ("edgespool_store_history_bytes", {}, 23_456),
    ("edgespool_store_max_bytes", {}, 2 * 1024**3),
    ("edgespool_store_appended_total", {}, 990),
    ("edgespool_store_accepted_bytes_total", {}, 1000),
    ("edgespool_store_written_bytes_total", {}, 4096),
    ("edgespool_store_commits_total", {}, 99),
    ("edgespool_store_commit_seconds", {}, 0.0015),
    ("edgespool_store_damaged_total", {}, 1),
    ("edgespool_sink_up", {"sink": "cloud", "kind": "amqp"}, 0),
    ("edgespool_sink_up", {"sink": "lab", "kind": "zeromq"}, 1),
    ("edgespool_sink_stalled", {"sink": "cloud", "kind": "amqp"}, 0),
    ("edgespool_sink_stalled", {"sink": "lab", "kind": "zeromq"}, 0),
    ("edgespool_sink_stalls_total", {"sink": "lab", "kind": "zeromq"}, 0),
    ("edgespool_sink_stalls_total", {"sink": "cloud", "kind": "amqp"}, 3),
    ("edgespool_route_backlog_messages", {"route": "telemetry"}, 12_345),
    ("edgespool_route_backlog_bytes", {"route": "telemetry"}, 4_567_890),
    ("edgespool_route_oldest_age_seconds", {"route": "telemetry"}, 3723.4),
    ("edgespool_route_delivered_total", {"route": "telemetry"}, 900),
    ("edgespool_route_refused_total", {"route": "telemetry"}, 2),
    ("edgespool_route_expired_total", {"route": "telemetry"}, 3),
    ("edgespool_route_lost_total", {"route": "telemetry"}, 4),
    ("edgespool_route_dropped_total", {"route": "telemetry", "reason": "full_oldest"}, 1),
    ("edgespool_route_dropped_total", {"route": "telemetry", "reason": "full_newest"}, 0),
    ("edgespool_route_dropped_total", {"route": "telemetry", "reason": "bound_oldest"}, 0),
    ("edgespool_route_dropped_total", {"route": "telemetry", "reason": "bound_newest"}, 3),
    ("edgespool_route_accepted_total", {"route": "telemetry"}, 13_260),
    ("edgespool_route_filtered_total", {"route": "telemetry"}, 5),
    ("edgespool_route_undecided_total", {"route": "telemetry", "reason": "not_json"}, 3),
    ("edgespool_route_undecided_total", {"route": "telemetry", "reason": "unknown"}, 1),
    ("edgespool_route_damaged_total", {"route": "telemetry"}, 1),
    ("edgespool_route_backlog_messages", {"route": "all"}, 0),
    ("edgespool_dead_letters_messages", {}, 2),
    ("edgespool_route_dead_letters", {"route": "telemetry", "reason": "no queue takes it"}, 2),
    ("edgespool_route_dead_letters_dropped_total", {"route": "telemetry"}, 7),
    ("edgespool_command_source_up", {"command": "setpoints"}, 1),
    ("edgespool_command_received_total", {"command": "setpoints"}, 21),
    ("edgespool_command_waiting", {"command": "setpoints"}, 22),
    ("edgespool_command_stored_total", {"command": "setpoints"}, 23),
    ("edgespool_command_delivered_total", {"command": "setpoints"}, 24),
    ("edgespool_command_expired_total", {"command": "setpoints"}, 25),
    ("edgespool_command_rejected_total", {"command": "setpoints"}, 26),
    ("edgespool_command_undeliverable_total", {"command": "setpoints"}, 27),
    ("edgespool_command_repeated_total", {"command": "setpoints"}, 28),
    ("edgespool_command_lost_total", {"command": "setpoints"}, 0),
    ("edgespool_command_lost_total", {"command": "lamps"}, 39),
]


def samples(text, parser):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("generate", "parser"), [(generate_latest, parse), (generate_openmetrics, parse_openmetrics)]
)
def test_every_number_of_the_status_is_there(generate, parser):
    seen = samples(generate(registry(lambda: STATUS)).decode(), parser)
    for name, labels, value in EXPECTED:
        assert seen[(name, tuple(sorted(labels.items())))] == value, name
    own = {key for key in seen if key[0].startswith("edgespool_")}
    assert (
        len(own) == len(EXPECTED) + 9 + 9
    )  # the other numbers of the route `all`, and of the commands `lamps`


def test_the_process_tells_its_memory_and_when_it_started():
    seen = samples(generate_latest(registry(lambda: STATUS)).decode(), parse)
    me = psutil.Process()
    assert seen[("process_resident_memory_bytes", ())] == pytest.approx(me.memory_info().rss, rel=0.2)
    assert seen[("process_start_time_seconds", ())] == pytest.approx(me.create_time(), abs=2)
    assert seen[("process_start_time_seconds", ())] < time.time()


def test_given_hostile_names_when_scraped_then_the_text_still_parses():
    name = 'a"} 1\nedgespool_ready 0 \\'
    status = msgspec.structs.replace(STATUS, routes={name: STATUS.routes["all"]}, gateway=name)
    seen = samples(generate_latest(registry(lambda: status)).decode(), parse)
    assert seen[("edgespool_ready", ())] == 1
    assert seen[("edgespool_route_backlog_messages", (("route", name),))] == 0


def test_a_registry_takes_no_snapshot_before_the_first_scrape():
    def snapshot():
        raise AssertionError("the house is not up yet")

    registry(snapshot)
