"""Write completions/ from the command tree; click generates the scripts."""

from pathlib import Path

from click.shell_completion import get_completion_class

from peelkit.cli.main import cli

FOLDER = Path(__file__).parents[1] / "completions"
NAMES = {"bash": "peelkit.bash", "zsh": "_peelkit", "fish": "peelkit.fish"}


def generate() -> dict[str, str]:
    """File name to its text."""
    texts = {}
    for shell, name in NAMES.items():
        kind = get_completion_class(shell)
        assert kind is not None
        # click asks the shell for its version when it makes the bash script; the text is the same.
        kind._check_version = staticmethod(lambda: None)  # type: ignore[attr-defined]
        texts[name] = kind(cli, {}, "peelkit", "_PEELKIT_COMPLETE").source()
    return texts


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in generate().items():
        (FOLDER / name).write_text(text)
