"""The command line: one file per command, one folder per group of commands.

Heavy imports stay inside the commands, so that `tbps --help` starts quickly.
"""

import os
import sys

import typer

from tbps import UNSUPPORTED, __version__
from tbps.cli import console, streams
from tbps.cli.audit import audit
from tbps.cli.calibrate import calibrate
from tbps.cli.convert import convert
from tbps.cli.data import data
from tbps.cli.doctor import doctor
from tbps.cli.embed import embed
from tbps.cli.evaluate import evaluate
from tbps.cli.explain import explain
from tbps.cli.gallery import gallery
from tbps.cli.gallery.forget import forget
from tbps.cli.group import RedactingGroup
from tbps.cli.index import index
from tbps.cli.keys import keys
from tbps.cli.search import SearchCommand, search
from tbps.cli.serve import serve
from tbps.cli.study import study
from tbps.cli.train import train
from tbps.errors import SettingsError, TbpsError, UnsupportedSystemError

app = typer.Typer(
    name="tbps",
    cls=RedactingGroup,
    help="Text-based person search: describe a person in words, find them in a gallery of images.\n\n"
    "Put --debug before the command to see the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},  # inherited by every command
)
app.add_typer(data)
app.add_typer(gallery)
app.add_typer(study)
app.add_typer(keys)
app.add_typer(audit)
for verb in (train, evaluate, embed, calibrate, index, forget, serve, convert, doctor):
    app.command()(verb)
for query_verb in (search, explain):
    app.command(cls=SearchCommand)(query_verb)


@app.callback(invoke_without_command=True)
def options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Options that are given before the command."""
    if version:
        console.output.print(f"tbps {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and exit: 0 on success, 2 after a `TbpsError` (printed as one line), 130 after Ctrl-C.

    When the reader of standard output closes the pipe early, as `head` does, the exit code is 141 and nothing is printed.
    """
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        streams.prepare()
        code = 2 if _is_unsupported() else _run()
        streams.finish()
    except streams.OutputError as error:
        code = streams.CLOSED_PIPE
        if not error.closed_pipe:
            console.fail(error, debug="--debug" in sys.argv)
            code = 2
    sys.exit(code)


def _run() -> int:
    """Run the command in `sys.argv` and return its exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except TbpsError as error:
        console.fail(error, debug="--debug" in sys.argv)
        return 2
    except KeyboardInterrupt:
        console.messages.print("interrupted")
        return 130
    except UnicodeEncodeError as error:
        if error.encoding == "utf-8" or error.encoding != sys.getfilesystemencoding():
            raise
        message = f"the name {error.object!r} cannot be written in {error.encoding}, the encoding of file names in this environment"
        console.fail(SettingsError(f"{message}; set LC_ALL=C.UTF-8 or PYTHONUTF8=1 and run again"), debug="--debug" in sys.argv)
        return 2
    return 0


def _is_unsupported() -> bool:
    """Whether tbps does not run on this operating system; if so, print that."""
    if os.name == "posix":
        return False
    console.fail(UnsupportedSystemError(UNSUPPORTED), debug=False)
    return True
