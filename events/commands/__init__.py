"""What foreigners write to an intake: each type with its fields, public or private.

Importing anything of this package registers every command. Fields that no command knows are kept
with the event that it becomes, among its private words.
"""

from events.commands import attempts, budgets, operators, tasks, workers
from events.commands.base import COMMANDS, Command

__all__ = ["COMMANDS", "Command", "attempts", "budgets", "operators", "tasks", "workers"]
