"""Agents that live in tmux sessions: what belongs to tmux and to its agents, not to a task.

===========  ================================================================================
``server``   tmux itself: sessions, panes, keys, pastes
``prompts``  a prompt on its way into an input box, and what of it arrived; pure
``turns``    a conversation as the agent's transcript tells it, turn by turn; pure
``state``    what an agent does and since when, by what it says of itself; pure
``hooks``    what the agent's hooks hand over, and the settings that make it do so
``agents``   the agent in a pane: its process, its files, read as they grow
``own_turn`` the turn of the attempt in hand, told from those of others
``claim``    that a session has one worker
``kept``     which attempt is in hand, written down so that another worker can take it up
===========  ================================================================================
"""
