"""Which log ids in the state lead to words that somebody still asks for once the log was cut."""

from __future__ import annotations

import msgspec

from projections import records
from services.archive import retention

# A log id is found by its name.
NAMES = ("_id", "place", "_said")
CARRIED = {
    "TaskRecord.log_id": "its prompt",
    "TaskRecord.failed_id": "its last error",
    "Progress.log_id": "its document",
    "Taught.place": "the example",
    "Overlay.place": "what the delegator was taught",
    "ProviderAccount.place": "why it waits",
}
WORDLESS = {
    "TaskRecord.dispatch_id": "which attempt an inbox has; its texts are the prompt's",
    "TaskRecord.cancel_id": "that it shall end; its worker is told at once, or without the reason",
    "Raised.log_id": "an alert, which is handed on at once",
    "Flagged.log_id": "named for whoever looks it up",
    "Issued.log_id": "a report, which has no words",
    "Meta.log_id": "the end of the log",
    "Meta.large_step_id": "an alert",
    "Meta.trimmed_said": "an alert",
    "Meta.foreign_id": "an alert",
    "Meta.foreign_said": "an alert",
    "Meta.eviction_said": "an alert",
    "Meta.compared_said": "an alert",
    "Meta.agent_said": "an alert",
    "Meta.forgotten_id": "that readers drop what they hold",
}


def places() -> set[str]:
    """Every field of a record that holds a log id."""
    kinds = [kind for kind in vars(records).values() if isinstance(kind, type)]
    return {
        f"{kind.__name__}.{field}"
        for kind in kinds
        if issubclass(kind, msgspec.Struct)
        for field in kind.__struct_fields__
        if field.endswith(NAMES)
    }


def test_of_every_log_id_in_the_state_it_is_known_whether_its_words_are_carried() -> None:
    """A new one whose words a screen reads belongs into ``needed`` in services/archive/retention.py
    and into CARRIED; any other into WORDLESS."""
    assert places() == CARRIED.keys() | WORDLESS.keys()


def test_what_is_carried_is_what_is_needed() -> None:
    read = set(retention.needed.__code__.co_names)
    for nested in retention.needed.__code__.co_consts:
        read |= set(getattr(nested, "co_names", ()))
    assert {name.partition(".")[2] for name in CARRIED} <= read
