"""The tables: each module defines one kind of row."""

from models.agent_bundles import AgentBundle
from models.agent_credentials import AgentCredential
from models.agent_drift import AgentDrift
from models.agent_files import AgentFile
from models.agent_places import AgentPlace
from models.agent_settings import AgentSetting
from models.agents import Agent
from models.boards import Board, BoardMemory
from models.entry_changes import EntryChange
from models.file_changes import FileChange
from models.file_owners import FileOwner
from models.file_texts import FileText
from models.gateway_states import GatewayState
from models.gateways import Gateway
from models.held_fields import HeldField
from models.held_files import HeldFile
from models.job_agents import JobAgent
from models.jobs import Job
from models.organizations import Organization
from models.roll_outs import RollOut, RollOutAgent
from models.roster_fields import RosterField
from models.roster_intents import RosterIntent
from models.schemas import MissionControl, Provisioner
from models.sync_schedules import SyncSchedule
from models.sync_windows import SyncWindow
from models.templates import OverrideForm, TemplatePin, TemplatePromotion, TemplateVersion
from models.upkeep import Upkeep
from models.users import OrganizationMember, User
from models.webhooks import Webhook, WebhookDelivery
from models.workers import Worker

__all__ = [
    "Agent",
    "AgentBundle",
    "AgentCredential",
    "AgentDrift",
    "AgentFile",
    "AgentPlace",
    "AgentSetting",
    "Board",
    "BoardMemory",
    "EntryChange",
    "FileChange",
    "FileOwner",
    "FileText",
    "Gateway",
    "GatewayState",
    "HeldField",
    "HeldFile",
    "Job",
    "JobAgent",
    "MissionControl",
    "Organization",
    "OrganizationMember",
    "OverrideForm",
    "Provisioner",
    "RollOut",
    "RollOutAgent",
    "RosterField",
    "RosterIntent",
    "SyncSchedule",
    "SyncWindow",
    "TemplatePin",
    "TemplatePromotion",
    "TemplateVersion",
    "Upkeep",
    "User",
    "Webhook",
    "WebhookDelivery",
    "Worker",
]
