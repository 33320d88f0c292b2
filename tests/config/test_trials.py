"""`tests`: a configuration that tries itself, and says where it does not do what was expected."""

import pytest

from bridge.config import loads
from bridge.config.problem import ConfigProblems

PLANT = """\
version: 1
gateway: plant-7
sinks: {lab: {memory: {}}}
routes:
  telemetry:
    from: plant/{line}/{machine}/telemetry
    where: payload.t > 20 and qos > 0
    to: lab
    address: "{line}.{machine}.{payload.kind}"
    headers: {unit: "{property.unit}", by: "{publisher}"}
    body: "{payload.t}"
  all: {from: "#", to: lab, envelope: json}
tests:
  - send: plant/a/7/telemetry
    payload: {t: 21.5, kind: k}
    qos: 1
    publisher: press-7
    properties: {unit: C}
    expect: """


def load(expectation, trials=True):
    return loads(PLANT + expectation, "plant.yaml", trials=trials)


FULFILLED = [
    "{route: telemetry}",
    "{route: telemetry, address: a.7.k, headers: {unit: C, by: press-7}, body: '21.5'}",
    "[{route: telemetry, sent: true}, {route: all, address: plant/a/7/telemetry}]",
    "{route: all}\n  - {send: x, payload: text, expect: {route: telemetry, sent: false}}",
    "{route: all}\n  - {send: plant/a/7/telemetry, expect: {route: telemetry, sent: false}}",
]


@pytest.mark.parametrize("expectation", FULFILLED)
def test_what_is_as_expected_is_no_mistake(expectation):
    assert load(expectation).tests


FAILS = [
    ("{route: telemetry, address: ‸a.7.x}", "tests[0].expect.address: the address is 'a.7.k'"),
    ("[{route: all}, {route: telemetry, body: ‸'21'}]", "tests[0].expect[1].body: the body is '21.5'"),
    ("{route: telemetry, headers: ‸{unit: C}}", "the headers are {'unit': 'C', 'by': 'press-7'}"),
    ("{route: telemetry, sent: ‸false}", "'telemetry' sends it"),
    ("{route: ‸telemtry}", "there is no route 'telemtry'; there are telemetry, all; did you mean"),
    ("{route: all}\n  - {send: x, expect: {route: ‸telemetry}}", "no filter of it matches this topic"),
    (
        "{route: all}\n  - {send: plant/a/7/telemetry, payload: x, qos: 1, expect: {route: ‸telemetry}}",
        "because the payload is not JSON",
    ),
    (
        "{route: all}\n  - {send: plant/a/7/telemetry, payload: {t: 1}, expect: {route: ‸telemetry}}",
        "`where` is false",
    ),
    (
        "{route: all}\n  - {send: plant/a/7/telemetry, payload: {}, qos: 1, expect: {route: ‸telemetry}}",
        "a field is missing, or of another kind",
    ),
    (
        "{route: all}\n  - {send: plant/a/7/telemetry, payload: {t: 30}, qos: 2,"
        "\n     expect: {route: ‸telemetry}}",
        "the address needs payload.kind",
    ),
    ("‸[]", "at least 1 item"),
    ("{route: all}\n  - {send: ‸a/#, expect: {route: all}}", "must not contain the wildcards"),
    ("{route: all, ‸adress: x}", "did you mean 'address'?"),
]


@pytest.mark.parametrize(("marked", "says"), FAILS)
def test_what_is_not_as_expected_is_pointed_at(marked, says):
    before, _, after = (PLANT + marked).partition("‸")
    with pytest.raises(ConfigProblems) as caught:
        loads(before + after, "plant.yaml", trials=True)
    [problem] = caught.value.problems
    assert says in str(problem)
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    assert (problem.line, problem.column) == (line, column)


def test_a_gateway_starts_without_them():
    assert load("{route: telemetry, address: other}", trials=False).tests
