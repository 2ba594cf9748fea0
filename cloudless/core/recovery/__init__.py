"""Recovery from a lost quorum: who of the survivors is furthest, and what is to be done, as values."""

from cloudless.core.recovery.ranking import Survivor, best_of
from cloudless.core.recovery.verdict import Neighbour, Outlook, judge_recovery

__all__ = ["Neighbour", "Outlook", "Survivor", "best_of", "judge_recovery"]
