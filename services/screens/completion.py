"""Scripts that complete command lines, for each shell from the same table. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, lines: Mapping[str, Sequence[str]]) -> str:
    """``lines``: what may follow each beginning of a command line, "" for none."""
    if shell == "fish":
        return _fish(lines)
    if shell == "zsh":
        return f"autoload -Uz compinit bashcompinit && compinit -u && bashcompinit\n{_bash(lines)}"
    return _bash(lines)


def _bash(lines: Mapping[str, Sequence[str]]) -> str:
    longer_first = sorted(lines, key=lambda words: -len(words.split()))
    cases = "\n".join(
        f'        {_pattern(words)}) COMPREPLY=($(compgen -W "{" ".join(lines[words])}" '
        '-- "$word")) ;;'
        for words in longer_first
    )
    return (
        "_asb() {\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} said= w\n"
        '    for w in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do\n'
        '        [[ $w == -* ]] || said="$said$w "\n'
        "    done\n"
        '    case "$said" in\n'
        f"{cases}\n"
        "    esac\n"
        "}\n"
        "complete -o default -F _asb asb"
    )


def _pattern(words: str) -> str:
    """What a line that begins with ``words`` looks like, for `case`."""
    return f'"{words} "*' if words else '""'


def _fish(lines: Mapping[str, Sequence[str]]) -> str:
    rules = ["complete -c asb -f"]
    for words, follow in lines.items():
        names = " ".join(word for word in follow if not word.startswith("-"))
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words.split())
        when = seen or "__fish_use_subcommand"
        if names:
            rules.append(f"complete -c asb -n '{when}' -a '{names}'")
        rules += [
            f"complete -c asb -n '{when}' -l {option.removeprefix('--')}"
            for option in follow
            if option.startswith("--")
        ]
    return "\n".join(rules)
