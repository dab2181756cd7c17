"""The trace itself, on computations whose need is known."""

import torch
import torch.nn.functional as F

from app.devices import as_if, kind
from app.estimate.outline import Traced
from app.estimate.trace import Trace, backward
from app.ops import outline
from app.ops.recompute import by_rows


@by_rows
def squares(x, factor):
    return (x @ factor).square()


def test_views_and_what_is_filled_in_place_take_nothing_more():
    with torch.device("meta"), Trace() as trace:
        x = torch.zeros(10, 100)
        views = [x.view(1000), x.t(), x[2:], x.expand(4, 10, 100), x.add_(1), x.reshape(100, 10)]
        assert trace.bytes == trace.peak == 4000
        del x, views
    assert trace.bytes == 0


def test_what_is_let_go_is_not_in_use_and_was_at_the_peak():
    with torch.device("meta"), Trace() as trace:
        for _ in range(3):  # the second time, results are remembered
            y = torch.zeros(10, 100).exp().sum()
        assert (trace.bytes, trace.peak) == (4, 8004)
        del y


def test_the_backward_pass_lives_on_what_the_forward_pass_keeps():
    with torch.device("meta"), Trace() as trace:
        weight = torch.zeros(8, 8, requires_grad=True)
        loss = F.linear(torch.zeros(50, 8), weight).square().sum()
        kept = trace.bytes
        assert kept == 4 * (8 * 8 + 50 * 8 + 50 * 8 + 1)
        backward([loss], [torch.ones_like(loss)])
        assert trace.flops == 2 * (2 * 50 * 8 * 8)  # one product forward, one for the weight's gradient


def test_a_slice_stands_for_all():
    x, factor = torch.zeros(1, 60, 4), torch.zeros(4, 4, requires_grad=True)

    def traced(rows: int) -> tuple[float, tuple[int, ...]]:
        with torch.device("meta"), Trace() as trace, outline.using(Traced(trace)):
            given, weight = x.to("meta"), factor.detach().to("meta").requires_grad_()
            out = squares(rows, [given], [weight])
            backward([out.sum()], [torch.ones(())])
            return trace.flops, tuple(weight.grad.shape)

    once = 2 * 60 * 4 * 4
    assert traced(60) == (2 * once, (4, 4))
    assert traced(7) == (3 * once, (4, 4))  # made again for the backward pass


def test_inside_what_is_lifted_work_is_done():
    with torch.device("meta"), Trace() as trace, outline.using(Traced(trace)), as_if("mps"):
        assert kind(torch.zeros(1).device) == "mps"
        with outline.lifted():
            out = squares(2, [torch.ones(1, 5, 3)], [torch.ones(3, 3)])
            assert kind(out.device) == "cpu" and out.sum() == 5 * 3 * 9
