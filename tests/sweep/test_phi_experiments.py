"""The experiments about phi-balancing resolve to the rules that they name, and run."""

import pytest

from balancesim.errors import ConfigurationError
from balancesim.sweep.configuration import resolve
from balancesim.sweep.experiment import load_draft


@pytest.mark.parametrize(
    ("name", "n_rules"), [("phi-tradeoff", 32), ("phi-regret", 10), ("minibatch-bias", 5)]
)
def test_rules(name, n_rules):
    configuration = resolve(load_draft(name, None))
    assert len(configuration.rules) == n_rules
    assert configuration.run["comparator"] == ("rule",)
    assert "phi-balance" in {rule["kind"] for rule in configuration.rules}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('potential = "entropy"', "negative_entropy"),
        ('potential = "p_norm"', "`power` must be given"),
        ("ema_rate = 2.0", r"\(0, 1\]"),
        ('form = "both"', "gradient"),
    ],
)
def test_bad_keys_name_their_place(tmp_path, line, message):
    file = tmp_path / "mine.toml"
    head = 'name = "mine"\n[[source]]\nkind = "normal"\nn_experts = 4\n[[rule]]\nkind = "phi-balance"\n'
    file.write_text(f"{head}{line}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message) as found:
        resolve(load_draft(None, file))
    assert "rule[0]" in str(found.value)
