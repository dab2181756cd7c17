from app.ops.edge_transition.reference import edge_transition

__all__ = ["edge_transition"]
