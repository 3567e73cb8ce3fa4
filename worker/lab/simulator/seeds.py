"""The USER.md that each release writes for a new agent, verbatim, so that a worker can tell it from what an agent
or its human wrote. From ``docs/reference/templates/USER.md`` of OpenClaw (MIT licence), without the front matter,
as a running gateway writes it.
"""

# ruff: noqa: E501

from __future__ import annotations

_UP_TO_2026_3 = """\
# USER.md - About Your Human

_Learn about the person you're helping. Update this as you go._

- **Name:**
- **What to call them:**
- **Pronouns:** _(optional)_
- **Timezone:**
- **Notes:**

## Context

_(What do they care about? What projects are they working on? What annoys them? What makes them laugh? Build this over time.)_

---

The more you know, the better you can help. But remember — you're learning about a person, not building a dossier. Respect the difference.
"""

_2026_9_6 = """\
# USER.md - User Model

Store stable user preferences and profile facts as directives that can guide future sessions.

Use one directive per entry:

```md
<!-- observed: YYYY-MM-DD | status: active -->

- Prefer concise progress updates during implementation work.
```

- Begin each directive with an imperative such as `Always`, `Never`, or `Prefer`.
- Record the observation date and either `active` or `superseded` on the metadata line.
- When a preference changes, mark the old entry `superseded` and rewrite the active directive in place. Never append a contradictory active directive.
- Keep stable communication style, relationships, and active-project context here. Put durable non-profile facts and decisions in `MEMORY.md`.
- Save this file at the workspace root as `USER.md`. It loads every session with a separate 4,000-character budget.

## Directives

Replace the example below with a real directive and a real observation date before you save this file. Never leave a placeholder directive `active`.

<!-- observed: YYYY-MM-DD | status: active -->

- Prefer ...

## Related

- [Agent workspace](/concepts/agent-workspace)
"""

USER_MD = {
    "2026.2.12": _UP_TO_2026_3,
    "2026.2.26": _UP_TO_2026_3,
    "2026.3.13": _UP_TO_2026_3,
    "2026.9.6": _2026_9_6,
}
"""The text of USER.md, by release."""
