"""All tables, imported in one place so that `Base.metadata` is complete."""

from db.models.access import AccessSession, AccessToken, Account, AuditEvent
from db.models.analysis import Analysis
from db.models.arrival import AvailabilityNotice, CommitmentTransaction, PerformedStep
from db.models.delivery import Delivery
from db.models.draft import Draft
from db.models.event import Event
from db.models.feedback import ReadingFeedback
from db.models.order import Hl7Message, Order
from db.models.result import Result
from db.models.study import Instance, Series, Study
from db.models.workitem import Workitem, WorkitemEvent, WorkitemSubscription

__all__ = [
    "AccessSession",
    "AccessToken",
    "Account",
    "Analysis",
    "AuditEvent",
    "AvailabilityNotice",
    "CommitmentTransaction",
    "Delivery",
    "Draft",
    "Event",
    "Hl7Message",
    "Instance",
    "Order",
    "PerformedStep",
    "ReadingFeedback",
    "Result",
    "Series",
    "Study",
    "Workitem",
    "WorkitemEvent",
    "WorkitemSubscription",
]
