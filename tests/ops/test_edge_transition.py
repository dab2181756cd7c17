"""The edge transition, edge by edge."""

import torch

from app.ops.edge_transition import edge_transition
from tests.factories import generator

B, N, C, CZ = 2, 4, 3, 5
WIDTH = CZ + 2 * C


def test_it_is_an_mlp_with_a_residual_over_the_edge_and_its_two_nodes():
    source = generator()
    edge = torch.randn(B, N, N, CZ, generator=source)
    node = torch.randn(B, N, C, generator=source)
    first, second, last = (
        (torch.randn(out, WIDTH, generator=source), torch.randn(out, generator=source)) for out in (WIDTH, WIDTH, CZ)
    )
    found = edge_transition(edge, node, first, second, last)
    for b in range(B):
        for i in range(N):
            for j in range(N):
                x = torch.cat([edge[b, i, j], node[b, i], node[b, j]])
                hidden = (first[0] @ x + first[1]).clamp(min=0)
                hidden = (second[0] @ hidden + second[1]).clamp(min=0)
                expected = last[0] @ (hidden + x) + last[1]
                torch.testing.assert_close(found[b, i, j], expected, atol=1e-4, rtol=1e-5)
