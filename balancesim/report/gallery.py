"""The figures that the project shows: which command makes each, and what it says."""

from collections.abc import Sequence
from typing import NamedTuple


class Picture(NamedTuple):
    """One figure of the gallery.

    Attributes
    ----------
    name : str
        Its file under the gallery's folder, without an ending, such as ``"regret-sweep/summary"``.
    caption : str
        What it shows.
    command : str
        What remakes it.
    """

    name: str
    caption: str
    command: str


class Exhibit(NamedTuple):
    """Figures of one experiment.

    Attributes
    ----------
    experiment : str
        A named experiment.
    seeds : str or None
        Seeds to run, as ``--seeds`` takes them; None: the experiment's own.
    pictures : dict of str to (str, str)
        By name in the gallery: the file in the run's ``figures``, and the caption.
    """

    experiment: str
    seeds: str | None
    pictures: dict[str, tuple[str, str]]

    def shown(self) -> list[Picture]:
        """Return the figures with their command."""
        command = f"balancesim figures {self.experiment}"
        return [
            Picture(f"{self.experiment}/{name}", caption, command)
            for name, (_, caption) in self.pictures.items()
        ]


EXHIBITS = (
    Exhibit(
        "regret-sweep",
        None,
        {
            "summary": (
                "summary",
                "Final regret and imbalance of every step rule of ALF-LB on every source.",
            ),
            "pareto-0.8": (
                "source-05-pareto-index-0.8",
                "How regret grows on Pareto scores of index 0.8, whose mean is infinite, with S4's bound.",
            ),
            "token-stream": (
                "source-06-tokenstream-olmoe-wikipedia-layer-7-statistics-not-logits",
                "How regret grows on the OLMoE token stream (recorded statistics, not router logits).",
            ),
        },
    ),
    Exhibit(
        "balance-race",
        "0:4",
        {
            "normal": (
                "source-01-normal",
                "Score lost against imbalance left, normal scores; rules that see their batch are set apart.",
            ),
            "recovery": (
                "recovery-06-drifting-switch-at-1000",
                "Imbalance after all experts' offsets change at once, at step 1000.",
            ),
        },
    ),
    Exhibit(
        "phi-regret",
        None,
        {
            "pareto-1": (
                "source-05-pareto-index-1",
                "Growth of phi-balancing's regret on its own objective, Pareto 1; a logarithm ends at 2.",
            ),
        },
    ),
)


def index(pictures: Sequence[Picture]) -> str:
    """Return the gallery's page as Markdown: every figure with its caption and command."""
    lines = [
        "# Figures",
        "",
        "Remade from seeds by `balancesim figures` (or `make figures`), as SVG and PNG, with the same bytes",
        "on the same machine. The command below a figure remakes it alone; this page is written with it.",
    ]
    for picture in pictures:
        name = picture.name
        lines += [
            "",
            f"## {name}",
            "",
            f"![{name}]({name}.png)",
            "",
            picture.caption,
            "",
            f"`{picture.command}`",
        ]
    return "\n".join(lines) + "\n"
