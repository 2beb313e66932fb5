"""The verbs of the command line: where each lies, and what stands in the list before it is loaded.

Decides that a verb's module is loaded when the verb is called, and not before: what all of them need together takes longer to
import than most take to answer. Refuses to know what a verb does. A new verb is a function and a line of the table; a test
holds the line and the first paragraph of the function's docstring together.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import typer
from typer.completion import install_callback, show_callback
from typer.core import TyperCommand, TyperGroup

_MARKUP: Final = "rich"

Verbs = Mapping[str, tuple[str, str]]
"""From a verb's name to its place, ``module:function`` below this package, and to what it is for."""

ALONE: Verbs = {
    "up": ("running:run", "Start everything on this machine: the server, an agent, Envoy. Ctrl-C stops it."),
    "server": ("running:run_server", "Start the control plane alone, without an agent and a gateway. Ctrl-C stops it."),
    "apply": ("worlds:apply", "Make a world file the one that counts. Every apply is a revision, and kept."),
    "diff": ("worlds:diff", "Tell what an apply would change: not the text alone, but who would gain or lose what."),
    "export": ("glance:export", "Print the world file that counts, as it was written."),
    "status": ("glance:status", "Show the platform at a glance. Exit code 1 means that there are findings."),
    "events": (
        "happenings:events",
        "Show what happened: refused handshakes, denied requests, issued and revoked certificates.",
    ),
    "explain": ("happenings:explain", "Explain why a request or a handshake was refused, and what to do."),
    "backup": (
        "backup:backup",
        "Save the whole data directory as one file: ledgers, worlds, authorities with their keys. The platform goes on running.",
    ),
    "restore": (
        "backup:restore",
        "Put a backup into a new data directory; then 'handfast up --data DIR' goes on from it.",
    ),
}

GROUPS: Mapping[str, tuple[str, Verbs]] = {
    "cert": (
        "Issue, list, show, import and revoke certificates.",
        {
            "issue": (
                "certificates:issue",
                "Issue a certificate. The key is made here and stays here; the server gets a signing request.",
            ),
            "batch": (
                "batch:batch",
                "Issue a certificate for each name in a file. The keys are made here and stay here.",
            ),
            "show": (
                "certificates:show",
                "Show a certificate: from a file, without any server, or from the inventory by its serial or SHA-256.",
            ),
            "list": (
                "inventory:list_certificates",
                "List what was issued here, and others' certificates that are watched, newest first.",
            ),
            "import": (
                "importing:import_certificates",
                "Watch certificates that others issued: they stand in the list with their end. Nothing is trusted by that.",
            ),
            "own": (
                "inventory:own",
                "Say who looks after the certificates of a name, for 'handfast cert list --owner'.",
            ),
            "revoke": (
                "revoking:revoke",
                "Revoke. From then on it is refused everywhere, on connections that are open now, too.",
            ),
        },
    ),
    "audit": (
        "Check that no recorded event was changed, removed or reordered.",
        {
            "verify": (
                "audit:verify_chain",
                "Check the audit chain from its first link to its last. Exit code 1 where it does not hold, with the places.",
            ),
            "checkpoint": (
                "audit:make_checkpoint",
                "Sign where the audit chain ends now. Keep it where the server's operators cannot write: it is what proves the rest.",
            ),
        },
    ),
    "ca": (
        "Make, import, request and show the authority.",
        {
            "rotate": (
                "rotation:rotate",
                "Replace the issuing CA while everything runs, or the root with --root.",
            ),
            "status": (
                "rotation:status",
                "Show roots, issuing CAs and their leaves, the next date of each, and who holds up a rotation.",
            ),
            "forget-agent": (
                "rotation:forget_agent",
                "Forget an agent that will not come back, so that it holds up nothing and gets nothing. It can join again with a token for its name.",
            ),
            "init": (
                "authorities:init",
                "Make a root and an issuing CA before the first start. Without this, 'handfast up' makes them with P-256 keys.",
            ),
            "import": (
                "authorities:import_root",
                "Put an issuing CA under a root that you have, before the first start.",
            ),
            "csr": (
                "authorities:csr",
                "Ask for an issuing CA that a root elsewhere signs. The key is made here, or lies in a token, and stays there.",
            ),
            "install": (
                "authorities:install",
                "Take back what 'handfast ca csr' asked for, signed by a root elsewhere; or a newer revocation list of a CA above ours, alone.",
            ),
            "next": (
                "authorities:prepare",
                "Make the next issuing CA with a key and limits of your choice, where the root's key is here. 'ca rotate' then uses it.",
            ),
            "show": (
                "authorities:show",
                "Show root and issuing CAs on this disk: keys and where they lie, validity, what they may name, fingerprints.",
            ),
        },
    ),
    "agent": (
        "Let agents join.",
        {
            "token": (
                "agents:token",
                "Make a join token: one agent sends it once, and gets its first certificate.",
            ),
        },
    ),
    "est": (
        "Let devices enrol over EST (RFC 7030).",
        {
            "token": (
                "est:token",
                "Make an enrolment token: a device sends it once, with the workload's name, and gets its first certificate.",
            ),
            "withdraw": (
                "est:withdraw",
                "Take back all tokens of a workload. Certificates that were issued stay; 'handfast cert revoke' ends those.",
            ),
        },
    ),
    "acme": (
        "Let ACME clients in: certbot, lego, Caddy.",
        {
            "key": (
                "acme:key",
                "Make a key with which an ACME client gets an account (external account binding). It is shown once.",
            ),
            "list": ("acme:list_acme", "List ACME accounts, and the keys that still let some in."),
            "deactivate": (
                "acme:deactivate",
                "Close an ACME account, for good. Its certificates count until they end; 'handfast cert revoke' ends them at once.",
            ),
        },
    ),
    "domain": (
        "Have several trust domains in one server.",
        {
            "add": (
                "domains:add",
                "Add a trust domain. The server makes its authority when it starts the next time.",
            ),
            "change": (
                "domains:change",
                "Change where a trust domain's servers listen. It counts when the server starts the next time.",
            ),
            "list": ("domains:list_domains", "List the trust domains beside the first."),
        },
    ),
}


class Later(TyperCommand):
    """A verb that is not loaded yet: its name, and what it is for."""

    def __init__(self, name: str, place: str, purpose: str) -> None:
        """Keep where it lies: ``module:function``."""
        super().__init__(name, help=purpose)
        self._name, (self._module, _, self._function) = name, place.partition(":")

    def loaded(self) -> Any:  # noqa: ANN401 - Typer's own classes are private
        """Load it, and give the command with its arguments and options."""
        verb = typer.Typer(add_completion=False, rich_markup_mode=_MARKUP)
        verb.command(self._name)(getattr(import_module(f"{__package__}.{self._module}"), self._function))
        return typer.main.get_command(verb)


class Group(TyperGroup):
    """A group whose verbs are loaded when they are called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401 - as above
        """Find the verb that is called, or completed, and load it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, loaded(command), rest


_FOR_SHELL: Final = {
    "--show-completion": (
        "Show completion for a shell, such as bash; without a word, for the current one.",
        show_callback,
    ),
    "--install-completion": ("Install completion for a shell; without a word, for the current one.", install_callback),
}


class Root(Group):
    """``handfast`` itself, with all verbs and groups."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - as above
        """Put the tables into the group that Typer makes."""
        super().__init__(**{**given, "commands": {**_below(ALONE), **dict(map(_group, GROUPS))}})

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as above
        """Give the options, with words of ours where Typer's know no shell's name."""
        options: list[Any] = super().get_params(ctx)
        for option in options:
            if known := _FOR_SHELL.get(option.opts[0]):
                option.help, option.metavar = known[0], "[SHELL]"
        return options

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - as above
        """Let the shell that is named count: Typer would go by the one that calls, and there may be none."""
        option, said, shell = (*args, "")[0].partition("=")
        if len(args) == 2 and not said:
            shell = args[1]
        if option in _FOR_SHELL and shell and not shell.startswith("-"):
            _FOR_SHELL[option][1](ctx, ctx.command.params[0], shell)
        return super().parse_args(ctx, args)


def loaded(command: Any) -> Any:  # noqa: ANN401 - as above
    """Give a command as it is when it is called; groups are so already."""
    return command.loaded() if isinstance(command, Later) else command


def _below(verbs: Verbs) -> dict[str, Any]:
    return {name: Later(name, place, purpose) for name, (place, purpose) in verbs.items()}


def _group(name: str) -> tuple[str, Group]:
    purpose, verbs = GROUPS[name]
    group = Group(name=name, help=purpose, commands=_below(verbs), no_args_is_help=True, rich_markup_mode=_MARKUP)
    return name, group
