"""Work in the background, and what is remembered of it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from labelgen.samples import InputError
from pipeline.explorer.jobs import Job, Step
from pipeline.explorer.memory import Memory


def test_a_job_says_how_far_it_is_and_what_came_of_it() -> None:
    may_go_on = threading.Event()

    def work(step: Step) -> str:
        step()
        may_go_on.wait(20)
        step()
        return "result"

    job = Job(2, work)
    while job.done < 1:
        pass
    assert job.as_dict() == {"done": 1, "total": 2, "state": "running", "error": "", "result": None}
    may_go_on.set()
    job.stop(wait_s=20)


def test_a_job_that_fails_says_why_in_one_line() -> None:
    def work(step: Step) -> None:
        raise InputError("two\nlines")

    job = Job(1, work)
    job.stop(wait_s=20)
    assert (job.state, job.error) == ("failed", "two lines")


def test_a_job_ends_after_the_piece_it_works_at() -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def work(step: Step) -> None:
        for _ in range(1000):
            begun.set()
            may_go_on.wait(20)
            step()

    job = Job(1000, work)
    begun.wait(20)
    job.stop()
    may_go_on.set()
    job.stop(wait_s=20)
    assert (job.state, job.done) == ("failed", 1)


def test_a_value_is_made_once_though_several_ask_at_once() -> None:
    memory, made, go = Memory[int](2), [], threading.Barrier(4)

    def ask(_: int) -> int:
        go.wait(20)
        return memory.get("key", lambda: made.append(1) or 7)  # type: ignore[func-returns-value]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [7] * 4
    assert made == [1]


def test_what_was_asked_for_longest_ago_is_forgotten() -> None:
    memory, made = Memory[str](2), []

    def ask(key: str) -> str:
        return memory.get(key, lambda: made.append(key) or key)  # type: ignore[func-returns-value]

    for key in "abacab":
        ask(key)
    assert made == ["a", "b", "c", "b"]


def test_an_error_is_not_remembered() -> None:
    memory = Memory[int](2)
    with pytest.raises(ZeroDivisionError):
        memory.get("key", lambda: 1 // 0)
    assert memory.get("key", lambda: 1) == 1
