"""Asks a gateway whether it can take the settings that a patch would write, before the patch is sent.

The release's own schema decides, where the release hands it out, and the gateway's list of models. What they
cannot tell is left to the patch, whose refusal names the agent and the field.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.database import DATABASE_AWAY
from worker.errors import ProvisionerError
from worker.gateway.agent_ids import IMPLICIT_AGENT
from worker.gateway.client import Call, GatewayClient
from worker.gateway.documents import items, mapping, value_at
from worker.gateway.errors import GatewayError, PermanentGatewayError, UnknownSetting
from worker.gateway.roster_plan import RosterPlan
from worker.gateway.roster_reading import LiveRoster
from worker.gateway.setting_schema import Schema, accepts, described, keys_at, schema_at
from worker.jobs.states import ReasonCode
from worker.printable import line
from worker.roster.intents import Refusal

log = logging.getLogger(__name__)

_MODEL_FIELDS = ("model", "subagents.model")
_MOST_NAMED = 12
_MOST_LOOKED_UP = 100
"""Limit on the fields that a gateway is asked about before a patch, each of which is a call or two."""
_LONGEST_NAME = 200
"""Limit on the characters of a model's name that is shown: difflib's time grows as the square of both."""


def check_settings(
    client: GatewayClient, live: LiveRoster, plan: RosterPlan, names: Mapping[str, str]
) -> dict[str, Refusal]:
    """Why the gateway would not take an agent's settings, by OpenClaw id.

    Asks it only if the plan writes any. ``names``: the agents' names by id. Raises TransientError.
    """
    faults = plan.faults
    writing = {key: changes.written for key, changes in plan.fields.items() if changes.written}
    if writing:
        about = _Findings(client, live, sorted({name for each in writing.values() for name in each}))
        for key, written in writing.items():
            fault = _first_fault(about, written)
            if fault is not None:
                faults[key] = line(fault)
    return {key: setting_refusal(names.get(key, key), fault) for key, fault in faults.items()}


def _first_fault(about: _Findings, written: Mapping[str, Any]) -> str | None:
    """Why the gateway does not take one of the values. Where what it says of them is a fault of our own, that
    is left to the patch: the entries of other agents are in it too."""
    try:
        return next((fault for name in written if (fault := about.fault(name, written[name]))), None)
    except (ProvisionerError, *DATABASE_AWAY):
        raise
    except Exception:
        log.exception("a gateway's schema is a fault of our own")
        return None


def setting_refusal(agent: str, fault: str) -> Refusal:
    """The refusal of an entry whose settings cannot be written. ``agent``: the agent's name."""
    return Refusal(f"Agent {agent!r}: {fault}", ReasonCode.BAD_SETTING)


class _Findings:
    """What a gateway says of some fields."""

    def __init__(self, client: GatewayClient, live: LiveRoster, fields: Sequence[str]) -> None:
        self._client = client
        self._live = live
        self._models: _Models | None = None
        version = live.dialect.version
        self._release = "this OpenClaw release" if version == "dev" else f"OpenClaw {version}"
        look_up = self._looked_up if live.dialect.looks_up_schema else self._from_whole_schema
        self._unknown: dict[str, list[str]] = {}
        self._schemas: Mapping[str, Schema] = look_up(fields[:_MOST_LOOKED_UP])

    def fault(self, name: str, value: Any) -> str | None:
        """Why the gateway does not take this value, as a sentence; None if it does or cannot tell."""
        if name in self._unknown:
            return self._not_known(name, self._unknown[name])
        schema = self._schemas.get(name, {})
        if not accepts(schema, value):
            return (
                f"The setting {name} must be {described(schema)} in {self._release}: set it anew with"
                " `provisioner settings set`, or unset it."
            )
        return self._model_fault(name, value)

    def _not_known(self, name: str, known: Sequence[str]) -> str:
        above, _, last = name.rpartition(".")
        near = difflib.get_close_matches(last, known, 1)
        shown = [f"{above}.{near[0]}" if above else near[0]] if near else list(known)[:_MOST_NAMED]
        shown = [line(one, _LONGEST_NAME) for one in shown]
        hint = f" (it knows {', '.join(shown)})" if shown else ""
        return (
            f"{self._release[0].upper()}{self._release[1:]} knows no setting {name} of an agent{hint}: unset"
            " it with `provisioner settings unset`."
        )

    def _looked_up(self, fields: Sequence[str]) -> dict[str, Schema]:
        """The schemas of the fields, each asked for by its path (from 2026.8 on)."""
        found: dict[str, Schema] = {}
        for name, answer in zip(fields, self._look_up(fields), strict=True):
            if isinstance(answer, UnknownSetting):
                self._unknown[name] = self._known_beside(name)
            elif isinstance(answer, Mapping) and isinstance(answer.get("schema"), Mapping):
                found[name] = answer["schema"]
        return found

    def _look_up(self, fields: Sequence[str]) -> list[dict[str, Any] | GatewayError]:
        paths = [".".join(filter(None, ("agents.entries.*", name))) for name in fields]
        answers = self._client.call_many([Call("config.schema.lookup", {"path": path}) for path in paths])
        for answer in answers:
            if isinstance(answer, GatewayError) and not isinstance(answer, PermanentGatewayError):
                raise answer
        return answers

    def _known_beside(self, name: str) -> list[str]:
        """The fields that the release knows beside an unknown one."""
        answer = self._look_up([name.rpartition(".")[0]])[0]
        children = items(mapping(answer).get("children"))
        keys = [child.get("key") for child in children if isinstance(child, Mapping)]
        return sorted(key for key in keys if isinstance(key, str) and key != "*")

    def _from_whole_schema(self, fields: Sequence[str]) -> dict[str, Schema]:
        """The schemas of the fields, out of that of the whole config."""
        try:
            answer = self._client.call("config.schema")
        except PermanentGatewayError:
            return {}
        shape = "additionalProperties" if self._live.dialect.roster == "entries" else "items"
        place = ("schema", "properties", "agents", "properties", self._live.dialect.roster, shape)
        entry = value_at(answer, place)
        if not isinstance(entry, Mapping):
            return {}
        found: dict[str, Schema] = {}
        for name in fields:
            path = name.split(".")
            schema = schema_at(entry, path)
            if schema is None:
                self._unknown[name] = keys_at(entry, path[:-1])
            else:
                found[name] = schema
        return found

    def _model_fault(self, name: str, value: Any) -> str | None:
        if not any(name in (each, f"{each}.primary", f"{each}.fallbacks") for each in _MODEL_FIELDS):
            return None
        self._models = self._models or _Models.of(self._client, self._live)
        for model in value if isinstance(value, list) else [value]:
            if isinstance(model, str) and not self._models.has(model):
                return (
                    f"The gateway has no model {_quoted(model)}, which the setting"
                    f" {name} names ({self._models.shown(model)}): name one that it has, or add it to its"
                    " openclaw.json under agents.defaults.models."
                )
        return None


@dataclass(frozen=True)
class _Models:
    """The models that a gateway lists, and the names that its config gives to models; in lower case."""

    listed: tuple[str, ...]
    named: frozenset[str]

    @classmethod
    def of(cls, client: GatewayClient, live: LiveRoster) -> _Models:
        """Ask the gateway. From 2026.8 on the answer is one agent's, and needs one that the roster has."""
        present = sorted(live.present, key=lambda key: (key != IMPLICIT_AGENT, key))[:1]
        params = {"agentId": present[0]} if present and live.dialect.roster == "entries" else {}
        try:
            answer = client.call("models.list", params)
        except PermanentGatewayError:
            answer = {}
        found = [model for model in items(answer.get("models")) if isinstance(model, Mapping)]
        listed = [f"{model.get('provider')}/{model.get('id')}" for model in found]
        named = {str(model[key]).lower() for model in found for key in ("id", "alias") if key in model}
        return cls(tuple(listed), frozenset(named | set(_named_in_config(live))))

    def has(self, model: str) -> bool:
        """Whether the gateway has it, or lists nothing to compare it with."""
        wanted = model.strip().lower()
        known = self.named.union(map(str.lower, self.listed))
        return not self.listed or wanted in known or wanted.rpartition("@")[0] in known

    def shown(self, model: str) -> str:
        """The models to choose from, those of like names first."""
        usable = [name for name in self.listed if len(name) <= _LONGEST_NAME]
        near = difflib.get_close_matches(model[:_LONGEST_NAME], usable, 3)
        if near:
            return f"it has {', '.join(near)}"
        more = f" and {len(self.listed) - 3} more" if len(self.listed) > 3 else ""
        return f"it has {', '.join(line(name, _LONGEST_NAME) for name in self.listed[:3])}{more}"


def _quoted(model: str) -> str:
    return json.dumps(line(model, _LONGEST_NAME), ensure_ascii=False)


def _named_in_config(live: LiveRoster) -> Iterator[str]:
    """The models and aliases under agents.defaults.models, which the owner lets agents use."""
    for model, about in mapping(value_at(live.document, ("agents", "defaults", "models"))).items():
        yield str(model).lower()
        if isinstance(about, Mapping) and isinstance(about.get("alias"), str):
            yield about["alias"].lower()
