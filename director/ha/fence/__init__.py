"""What keeps this machine from answering for a virtual address, whatever its processes do: a deadline in the kernel."""

__all__ = ["FENCES", "Fence", "Lifetime", "best", "fences"]

from director.ha.fence.choosing import FENCES, best, fences
from director.ha.fence.interface import Fence
from director.ha.fence.lifetime import Lifetime
