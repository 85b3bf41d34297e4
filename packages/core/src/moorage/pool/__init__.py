"""
The pool of an engine: :class:`LoopPool`, and all that belongs to its connections alone.

``loop_pool`` is what SQLAlchemy sees; ``place`` keeps the connections of one event loop;
``holders`` tells who has them; ``connecting`` and ``liveness`` decide when one is opened and
whether an idle one is still good; ``transport`` is the socket underneath.
"""

from moorage.pool.connecting import ConnectGate
from moorage.pool.holders import takes_two, work_name
from moorage.pool.liveness import attach_liveness
from moorage.pool.loop_pool import LoopPool, leave_to_parent, pool_of_marked
from moorage.pool.place import CLOSED_BY_FORCE, PoolObserver
from moorage.pool.transport import enable_keepalive, note_descriptor, release_descriptor

__all__ = [
    "CLOSED_BY_FORCE",
    "ConnectGate",
    "LoopPool",
    "PoolObserver",
    "attach_liveness",
    "enable_keepalive",
    "leave_to_parent",
    "note_descriptor",
    "pool_of_marked",
    "release_descriptor",
    "takes_two",
    "work_name",
]
