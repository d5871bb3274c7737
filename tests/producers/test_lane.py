from __future__ import annotations

from drawbar.ports import Reply
from drawbar.throttle import Throttle
from producers.lane import LaneHttp
from tests.producers.worlds import Fate, SimBusinessCentral, SimClock


class TestLaneHttp:
    def test_answers_by_itself_while_the_system_wants_no_requests(self):
        """One refusal closes the lane for all entities; each is told for how long, and nothing is sent."""
        clock, fate = SimClock(), Fate()
        world = SimBusinessCentral(clock, fate)
        record_id = world.create()
        lane = LaneHttp(world, Throttle(max_parallel=2, requests_per_5_min=6000), clock)
        fate.answers.append(Reply(status=429, headers={"retry-after": "30"}))
        path = f"companies(x)/customers({record_id})"
        refused = lane.call("GET", path)
        clock.seconds += 10
        closed = lane.call("GET", path)
        calls = fate.calls
        clock.seconds += 21
        open_again = lane.call("GET", path)

        assert (429, 429, 200) == (refused.status, closed.status, open_again.status)
        assert 20 == float(closed.headers["retry-after"])
        assert 1 == calls

    def test_says_how_much_was_asked_and_refused(self):
        """Of what was sent: an answer that the lane gives by itself is no request."""
        clock, fate = SimClock(), Fate()
        world = SimBusinessCentral(clock, fate)
        path = f"companies(x)/customers({world.create()})"
        lane = LaneHttp(world, Throttle(max_parallel=2, requests_per_5_min=100), clock)
        lane.call("GET", path)
        fate.answers.append(Reply(status=429, headers={"retry-after": "30"}))
        lane.call("GET", path)
        lane.call("GET", path)

        assert {"requests": 2, "throttled": 1, "allowance_used": 0.02} == lane.status()
