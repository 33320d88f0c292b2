"""Routes on one link: the higher one first, nobody never, and equals as they come."""

from bridge.policy.line import Line


def test_below_one_that_has_all_its_places_there_is_one_place():
    line = Line()
    assert line.places(1, 4) == 4
    line.tell("alarms", 9, full=True)
    assert [line.places(priority, 4) for priority in (1, 8, 9)] == [1, 1, 4]
    line.tell("values", 5, full=True)
    line.tell("alarms", 9, full=False)
    assert [line.places(priority, 4) for priority in (1, 5, 9)] == [1, 4, 4]
    line.tell("values", 5, full=False)
    line.tell("values", 5, full=False)
    assert line.places(0, 4) == 4
