"""The view: a look that began before something was done does not undo it."""

from agent.core.observe import EngineState, Observed
from agent.reconcile.view import View


def seen(name: str, state: EngineState = "running", engine_id: str = "") -> Observed:
    return Observed(engine_id or f"engine_{name}", name, "hash", state)


def test_a_list_says_what_is_there_and_what_is_gone() -> None:
    view = View()
    view.offer_all([seen("a"), seen("b")], view.tick())
    view.offer_all([seen("b")], view.tick())
    assert list(view.observed) == ["b"]


def test_a_list_that_began_before_a_create_does_not_undo_it() -> None:
    view = View()
    began = view.tick()
    view.put("a", seen("a", "created"), view.tick())
    view.offer_all([], began)
    assert view.observed["a"].state == "created"
    view.offer_all([], view.tick())
    assert not view.observed


def test_a_list_that_began_before_a_removal_does_not_undo_it() -> None:
    view = View()
    view.offer_all([seen("a")], view.tick())
    began = view.tick()
    view.put("a", None, view.tick())
    view.offer_all([seen("a")], began)
    assert not view.observed


def test_an_inspection_overtaken_by_an_action_is_dropped() -> None:
    view = View()
    began = view.tick()
    view.put("a", seen("a", "running"), view.tick())
    view.offer("a", seen("a", "created"), began)
    assert view.observed["a"].state == "running"


def test_looks_cover_the_events_that_came_before_them() -> None:
    view = View()
    early = view.tick()
    view.put("a", seen("a"), view.tick())
    late = view.tick()
    assert view.looked_since("a", early)
    assert not view.looked_since("a", late)


def test_a_mere_listing_takes_nothing_away_from_what_is_known() -> None:
    view = View()
    known = Observed("engine_a", "a", "hash", "running", started_at=5.0, pid=7)
    view.offer_all([known], view.tick())
    view.offer_all([seen("a")], view.tick())
    assert view.observed["a"] == known
    for other in (seen("a", "exited"), seen("a", "running", "engine_new")):
        view.offer_all([other], view.tick())
        assert view.observed["a"] == other, "another state, or another engine container, is news"


def test_of_two_engine_containers_of_one_instance_the_more_alive_counts() -> None:
    for items in (
        [seen("a", "exited", "1"), seen("a", "running", "2")],
        [seen("a", "running", "2"), seen("a", "exited", "1")],
    ):
        view = View()
        view.offer_all(items, view.tick())
        assert view.observed["a"].engine_id == "2"
