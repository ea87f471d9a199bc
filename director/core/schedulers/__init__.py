"""Choosing among eligible hosts. See `base` for what a scheduler is, `registry` for which there are."""

from director.core.schedulers.base import Random, Scheduler
from director.core.schedulers.registry import SCHEDULERS, check_parameters, follows_reports, make_scheduler
from director.core.schedulers.sticky import with_sticky

__all__ = ["SCHEDULERS", "Random", "Scheduler", "check_parameters", "follows_reports", "make_scheduler", "with_sticky"]
