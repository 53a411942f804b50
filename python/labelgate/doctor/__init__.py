"""What stands in the way of enforcing policy here: each finding with what it means and its mend."""

from labelgate.doctor.diagnosis import Diagnosis, State
from labelgate.doctor.examination import examine

__all__ = ["Diagnosis", "State", "examine"]
