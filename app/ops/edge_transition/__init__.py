from app.ops.edge_transition.chunked import edge_transition

__all__ = ["edge_transition"]
