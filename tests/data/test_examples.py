"""Examples that cannot be used: whatever is wrong with them they cost no run, and are told once with their reason."""

import logging
import time

import numpy as np
import pytest
import torch

from app.data.examples import Examples, refuse_unusable
from app.data.loader import ResumableLoader
from app.data.loader_settings import LoaderSettings
from app.errors import UserError


def features(length, **changes):
    masks = dict.fromkeys(("res_mask", "diffuse_mask", "plddt_mask"), torch.ones(length))
    indices = dict.fromkeys(("chain_idx", "res_idx", "aatypes_1"), torch.ones(length, dtype=torch.int64))
    frames = {"trans_1": torch.zeros(length, 3), "rotmats_1": torch.eye(3).repeat(length, 1, 1)}
    return {**masks, **indices, **frames, **changes}


class Brittle:
    """Examples of which some are broken: `faults` maps an index to an exception, or to changes of its features."""

    lengths = (50, 60, 61, 70, 70)
    names = ("a", "b", "c", "d", "e")

    def __init__(self, faults=None, seconds=0.0):
        self.faults, self.seconds = faults or {}, seconds

    def draw(self, epoch, seed):
        return range(5)

    def __getitem__(self, index):
        time.sleep(self.seconds)
        fault = self.faults.get(index, {})
        if isinstance(fault, Exception):
            raise fault
        return {"name": self.names[index], **features(self.lengths[index], **fault)}


NAN = {"trans_1": torch.full((61, 3), float("nan"))}
FAULTS = {
    1: UserError("b.pkl: broken"),
    2: NAN,
    3: {"aatypes_1": torch.full((70,), 21)},
}
REASONS = {
    "b": "b.pkl: broken",
    "c": "trans_1 holds NaN or infinite numbers",
    "d": "aatypes_1 holds residue types beyond 0 to 20",
}


def loader(dataset, workers=0, **settings):
    return ResumableLoader(dataset, LoaderSettings(num_workers=workers, **settings), position=lambda: (0, 0))


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (UserError("c.pkl: broken"), "c.pkl: broken"),
        (OSError(5, "Input/output error"), "unexpected OSError: [Errno 5] Input/output error"),
        (IndexError("list index\nout of range"), "unexpected IndexError: list index out of range"),
        (MemoryError(), "unexpected MemoryError: "),
        (NAN, "trans_1 holds NaN or infinite numbers"),
        ({"rotmats_1": torch.full((61, 3, 3), float("inf"))}, "rotmats_1 holds NaN or infinite numbers"),
        (features(60), "res_mask is of 60 residues, not of 61"),
        ({"aatypes_1": torch.full((61,), -1)}, "aatypes_1 holds residue types beyond 0 to 20"),
        ({"res_mask": torch.zeros(61)}, "no residue is present"),
    ],
)
def test_an_example_gives_way_to_its_neighbour_whatever_is_wrong_with_it(fault, reason):
    examples = Examples(Brittle({2: fault}), seed=0)
    read = examples.__getitems__([(0, 2), (0, 3), (0, 2)])
    assert read.batch.names == ["b", "d", "b"], "the nearest that is not longer"
    assert read.dropped == {"c": reason}
    assert examples.__getitems__([(1, 2)]).dropped == {}, "told once"


def test_which_neighbour_does_not_depend_on_what_was_met_before():
    def taken(*order):
        examples = Examples(Brittle(FAULTS), seed=0)
        return {index: examples[0, index]["name"] for index in order}

    assert taken(0, 1, 2, 3, 4) == taken(3, 2, 4, 1, 0) == {0: "a", 1: "a", 2: "a", 3: "e", 4: "e"}
    assert Examples(Brittle({0: NAN}), seed=0)[0, 0]["name"] == "b", "none is shorter"


@pytest.mark.parametrize("workers", [0, 2])
def test_each_is_told_once_whichever_process_met_it(workers, caplog):
    read = loader(Brittle(FAULTS), workers, max_batch_size=1)
    for _ in range(3):
        batches = [batch.names for batch in read]
        assert len(batches) == 5 and {name for names in batches for name in names} == {"a", "e"}
    read.close()
    assert read.dropped == REASONS
    assert sorted(warnings(caplog)) == [f"dropped {name}: {reason}" for name, reason in REASONS.items()]


def test_a_checkpoint_remembers_them(caplog):
    first = loader(Brittle(FAULTS))
    list(first)
    caplog.clear()
    second = loader(Brittle(FAULTS))
    second.load_state_dict(first.state_dict())
    list(second)
    assert second.dropped == REASONS and not warnings(caplog)
    second.load_state_dict({"batches": second.batches.fingerprint()})  # of before they were remembered


class Renamed(Brittle):
    names = ("a", "b", "c", "d", "f")


class Known(Brittle):
    contents = np.arange(5)


class Changed(Brittle):
    contents = np.arange(1, 6)


@pytest.mark.parametrize(("before", "now"), [(Brittle, Renamed), (Known, Changed), (Brittle, Known)])
def test_a_checkpoint_of_other_examples_is_told(before, now, caplog):
    state = loader(before({})).state_dict()
    loader(before({})).load_state_dict(state)
    assert not warnings(caplog)
    loader(now({})).load_state_dict(state)
    assert len(warnings(caplog)) == 1 and "of other batches than the run would have had" in warnings(caplog)[0]


def test_a_checkpoint_of_before_names_were_kept_is_not_doubted(caplog):
    state = loader(Brittle({})).state_dict()
    del state["examples"]
    loader(Renamed({})).load_state_dict(state)
    assert not warnings(caplog)


@pytest.mark.parametrize("workers", [0, 1])
def test_where_nothing_can_be_used_one_line_says_why(workers):
    read = loader(Brittle(dict.fromkeys(range(5), UserError("disk: not mounted"))), workers)
    with pytest.raises(UserError) as error:
        list(read)
    read.close()
    assert str(error.value).startswith("data: not one example can be used: ") and "\n" not in str(error.value)
    assert str(error.value).endswith("disk: not mounted")


def test_good_features_pass():
    refuse_unusable({"name": "x", **features(7)}, 7)
    with pytest.raises(UserError, match="of 7 residues, not of 8"):
        refuse_unusable(features(7), 8)


def test_workers_are_started_where_there_is_much_to_read():
    by_data = LoaderSettings(num_workers=None)
    assert (by_data.workers(999), by_data.workers(1000)) == (0, 2)
    assert LoaderSettings().workers(10**6) == 0 and LoaderSettings(num_workers=5).workers(1) == 5


def test_a_batch_is_ready_before_it_is_needed():
    """Two workers read for as long as a step takes, and yet steps only wait for the first batch."""
    many = type("Many", (Brittle,), {"lengths": (50,) * 24, "names": tuple(f"x{n}" for n in range(24)), "draw": _all})
    seconds = 0.05
    read = loader(many(seconds=seconds), workers=2, max_batch_size=1)
    batches = iter(read)
    next(batches)
    first = read.waited
    for _ in range(23):
        time.sleep(seconds)
        next(batches)
    read.close()
    assert first > 0 and (read.waited - first) < 0.4 * 23 * seconds

    alone = loader(many(seconds=seconds), workers=0, max_batch_size=1)
    list(alone)
    assert alone.waited > 24 * seconds


def _all(self, epoch, seed):
    return np.arange(24)
