"""The program `sslbench`: loads commands on demand, finds plugins, and decides exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import UnknownName, UserError
from .text import OutputLost, let_go, one_line, say

if TYPE_CHECKING:
    from ..plugins import Registry

INTERNAL, USAGE, INTERRUPTED, UNREAD = 1, 2, 130, 141
COMMANDS = {
    "run": "run:run",
    "evaluate": "evaluate:evaluate",
    "plan": "plan:plan",
    "watch": "watch:watch",
    "list": "listing:list_",
    "show": "show:show",
    "leaderboard": "leaderboard:leaderboard",
    "plugins": "plugins:plugins",
    "corrupt": "corrupt:corrupt",
    "store": "store:store",
    "doctor": "doctor:doctor",
}
MEANT = {  # names of commands in other programs -> ours
    **dict.fromkeys(("train", "fit", "pretrain", "bench", "benchmark"), "run` trains and judges"),
    **dict.fromkeys(("eval", "test"), "evaluate` judges what is trained"),
}
TAKES_VALUE = ("--plugin", "--no-plugin")
ANYWHERE = "--plugin FILE.py, --no-plugin NAME and --no-plugins work here too: see sslbench --help."


@dataclass
class State:
    """What all commands share: the command line as typed, and the plugins."""

    args: tuple[str, ...] = ()  # as typed
    files: tuple[Path, ...] = ()
    installed: bool = True
    block: tuple[str, ...] = ()
    verbose: bool = field(default_factory=lambda: bool(os.environ.get("SSLBENCH_DEBUG")))

    @cached_property
    def registry(self) -> Registry:
        from ..plugins import registry

        return registry(installed=self.installed, files=self.files, block=self.block)


# Headings of options in help, in this order; `options.under` puts an option under one.
ENCODER = "Weights from elsewhere"
WHAT, PROTOCOL = "What to run", "The protocol (a change gives it another id)"
WHERE, HOW, OUTPUT = "Where things lie", "How it is done", "Output"
GROUPS = ("Options", ENCODER, WHAT, PROTOCOL, WHERE, HOW, OUTPUT)


class Command(click.Command):
    """A command whose help shows options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = (p for p in self.get_params(ctx) if isinstance(p, click.Option))
        shown = [(option, row) for option in options if (row := option.get_help_record(ctx))]
        other = OUTPUT if any(hasattr(option, "group") for option, _ in shown) else "Options"
        groups: dict[str, list[tuple[str, str]]] = {}
        for option, row in shown:
            groups.setdefault(getattr(option, "group", other), []).append(row)
        for group in sorted(groups, key=GROUPS.index):
            with formatter.section(group):
                formatter.write_dl(groups[group])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True  # for a better message than click's
        try:
            left = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in ("--dry-run", "--dry"):
                raise
            raise UserError(
                f"`{ctx.command_path}` has no {error.option_name}; `sslbench plan` with the same "
                f"options says what would be done, and does nothing"
            ) from error
        if left and not ctx.resilient_parsing:
            raise UserError(_unasked(ctx, left[0]))
        return left

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(ANYWHERE)


def _unasked(ctx: click.Context, argument: str) -> str:
    """The error message for an argument that a command does not take."""
    sentence = f"`{ctx.command_path}` takes no argument {argument!r}"
    if not {"suite", "methods"} <= {param.name for param in ctx.command.params if param.opts}:
        return f"{sentence}; `{ctx.command_path} --help` says what it takes"
    if any(
        param.name == "suite" and not param.opts[0].startswith("-") for param in ctx.command.params
    ):
        return f"{sentence} beside the suite; methods are named by --methods {argument}"
    return (
        f"{sentence}: is it a suite or a method? write --suite {argument} or --methods {argument}"
    )


class Commands(click.Group):
    """A group of commands that suggests the nearest name for an unknown one."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        typed = not ctx.resilient_parsing and not args[0].startswith("-")
        if typed and self.get_command(ctx, args[0]) is None:
            if ctx.parent is None and args[0] in MEANT:
                raise UserError(f"unknown command {args[0]!r}; `sslbench {MEANT[args[0]]}")
            raise UnknownName("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class Program(Commands):
    """The command `sslbench` itself. It decides every exit code."""

    def main(self, args: Any = None, prog_name: Any = None, *more: Any, **extra: Any) -> Any:
        typed = list(sys.argv[1:] if args is None else args)
        state = State(args=tuple(typed))
        extra |= {"standalone_mode": False, "obj": state}
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError):  # not every stream can
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # suppressed
        sys.exit(_ended(lambda: super(Program, self).main(typed, "sslbench", **extra), state))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        first, rest = _plugins_apart(args)
        state = ctx.ensure_object(State)
        given, _, _ = self.make_parser(ctx).parse_args(list(first))
        # before `--help` is handled, which ends the program
        state.files = tuple(Path(file) for file in given.get("plugin") or ())
        state.installed = not given.get("no_plugins")
        state.block = tuple(given.get("no_plugin") or ())
        left = super().parse_args(ctx, [*first, *rest])
        state.verbose = state.verbose or bool(ctx.params.get("verbose"))
        return left

    def list_commands(self, ctx: click.Context) -> list[str]:
        offered = ctx.ensure_object(State).registry.names("commands")
        return [*COMMANDS, *(name for name in offered if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, attribute = COMMANDS[cmd_name].split(":")
            found = getattr(import_module(f"{__package__}.{module}"), attribute)
            return found if isinstance(found, click.Command) else None
        entry = ctx.ensure_object(State).registry.entries("commands").get(cmd_name)
        if entry is None:
            return None
        loaded = entry.load()
        if not isinstance(loaded, click.Command):
            raise UserError(
                f"command {cmd_name!r} of {entry.dist} is {loaded!r}, not a command of click"
            )
        return loaded

    def invoke(self, ctx: click.Context) -> None:
        super().invoke(ctx)  # what a command returns is not an exit code

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Describes plugins' commands without loading them, so that help works whatever they do."""
        entries = ctx.ensure_object(State).registry.entries("commands")
        with formatter.section("Commands"):
            rows = []
            for name in self.list_commands(ctx):
                own = self.get_command(ctx, name) if name in COMMANDS else None
                text = own.get_short_help_str(80) if own else one_line(entries[name].summary())
                rows.append((name, text))
            formatter.write_dl(rows)


def _plugins_apart(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits off the options about plugins, which may stand anywhere and are read first."""
    first: list[str] = []
    rest: list[str] = []
    queue = list(args)
    while queue:
        arg = queue.pop(0)
        if arg == "--":
            rest += [arg, *queue]
            break
        if arg in TAKES_VALUE and queue:
            first += [arg, queue.pop(0)]
        elif arg == "--no-plugins" or arg.startswith(tuple(f"{o}=" for o in TAKES_VALUE)):
            first.append(arg)
        else:
            rest.append(arg)
    return first, rest


def _ended(work: Any, state: State) -> int:
    """Runs `work` and returns the exit code; prints a failure in one sentence."""
    output = sys.stdout
    try:
        code = work()
    except UserError as error:
        say(f"error: {one_line(error)}", err=True, fg="red")
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted; the same command goes on from here", err=True)
        return INTERRUPTED
    except OutputLost as error:
        return _unread(error)
    except SystemExit:
        if sys.stdout is output:
            raise
        # click put another stream there, since its own printing, such as help, has no reader
        return _unread(OutputLost(BrokenPipeError()))
    except Exception as error:  # noqa: BLE001 - this is where the program ends
        _internal(error, state)
        return INTERNAL
    return code if isinstance(code, int) else 0  # of click's Exit


def _unread(error: OutputLost) -> int:
    """The exit code where standard output takes no more. A reader who left needs no message."""
    let_go()
    if error.reader_left:
        return UNREAD
    say(f"error: {error}", err=True, fg="red")
    return USAGE


def _internal(error: Exception, state: State) -> None:
    say(f"internal error: {type(error).__name__}: {one_line(error)}", err=True, fg="red")
    if state.verbose:
        say("".join(traceback.format_exception(error)), err=True)
    else:
        say("SSLBENCH_DEBUG=1 or `sslbench -v ...` shows the traceback", err=True)


@contextlib.contextmanager
def quiet_libraries(*, verbose: bool) -> Iterator[None]:
    """Keeps warnings and logs of libraries off the terminal, here and in worker processes."""
    import logging
    import warnings

    before = os.environ.get("SSLBENCH_VERBOSE")
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        if verbose:
            os.environ["SSLBENCH_VERBOSE"] = "1"
        else:
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
            if before is None:
                os.environ.pop("SSLBENCH_VERBOSE", None)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--plugin",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.py",
    help="Load a plugin from one file. Repeatable; here or after the command.",
)
@click.option("--no-plugins", is_flag=True, help="Do not load installed plugins.")
@click.option(
    "--no-plugin",
    multiple=True,
    metavar="NAME",
    help="Do not load this plugin or distribution. Repeatable.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks and libraries' warnings.")
@click.version_option(__version__, prog_name="sslbench")
def program(**plugins: object) -> None:
    """A benchmark harness for self-supervised learning of visual features.

    `sslbench run --methods moco,swav` trains and judges what the store lacks of the default suite,
    and prints the leaderboard.

    Exit codes: 0 success, 1 internal error, 2 usage error, 3 a cell failed, 4 nothing is selected,
    5 a check failed, 6 `leaderboard diff --fail-on-change` found a change, 130 interrupted, 141 the
    reader of the output left.
    """
