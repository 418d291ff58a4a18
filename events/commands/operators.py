"""What operators say of the bus itself."""

from __future__ import annotations

from typing import Annotated

import msgspec

from events.commands.base import Command, command
from events.words import PRIVATE, Label, Text


@command("intake.opened")
class OpenIntake(Command):
    """``name`` gets an intake of its own."""

    name: Label


@command("clock.confirmed")
class ConfirmClock(Command):
    """The server's clock is right."""

    reason: Text = ""


@command("account.released")
class ReleaseAccount(Command):
    """The workers of an account that its provider limited get tasks again."""

    account: Label
    reason: Text = ""


class TaughtExample(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """A text of which somebody says what kind of work it asks for, or the ``task`` whose text it
    is."""

    kind: str
    text: str = ""
    task: str = ""


@command("delegator.learnt")
class TeachDelegator(Command):
    """Weights for the delegator, on top of the shipped ones; fields as in `DelegatorLearnt`."""

    overlay: Annotated[dict[str, str], PRIVATE] = msgspec.field(default_factory=dict[str, str])
    shipped: Label = ""
    after: Label = ""
    rows: int = 0
    examples: Annotated[tuple[TaughtExample, ...], PRIVATE] = ()
    forgotten: tuple[Label, ...] = ()
    reason: Text = ""
