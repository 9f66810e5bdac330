"""One rule at several settings: what is one rule, which setting is the default, which is tuned."""

from balancesim.report.race.variants import BOTH, DEFAULT, ONLY, TUNED, chosen, tuning_seeds, variants

ALF = {
    "kind": "alf-lb",
    "schedule": "",
    "step_size": 0.0,
    "recentre": False,
    "radius": None,
    "delay": 0,
    "step_unit": "spread",
}


def rules() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {"no balancing": {"kind": "none"}}
    for schedule in ("sign", "harmonic"):
        for step in (0.3, 1.0, 3.0):
            found[f"{schedule} x{step:g}"] = {**ALF, "schedule": schedule, "step_size": step}
    found["harmonic again"] = {**ALF, "schedule": "harmonic", "step_size": 1.0, "recentre": True}
    found["sign small"] = {**ALF, "schedule": "sign", "step_size": 0.001, "step_unit": "score"}
    return found


def test_numbers_are_settings_and_the_rest_is_the_rule() -> None:
    by_rule = {one.rule: one for one in variants(rules())}
    assert by_rule["no balancing"].family == "none"
    assert by_rule["no balancing"].setting == ""
    assert by_rule["sign x0.3"].family == by_rule["sign small"].family == "alf-lb sign no recentre"
    assert by_rule["harmonic again"].family == "alf-lb harmonic recentre"
    assert by_rule["sign x0.3"].setting == "x0.3"
    assert by_rule["sign small"].setting == "0.001"
    assert [one.rule for one in by_rule.values() if one.is_default] == [
        "no balancing",
        "sign x1",
        "harmonic x1",
        "harmonic again",
    ]


def test_what_never_varies_is_not_named() -> None:
    found = variants({"a": {**ALF, "schedule": "sign", "step_size": 1.0, "delay": 3}})
    assert (found[0].family, found[0].setting) == ("alf-lb sign", "delay 3")


def test_seeds_for_tuning_are_never_all() -> None:
    assert tuning_seeds(range(8)) == (0, 1)
    assert tuning_seeds([5, 3, 5]) == (3,)
    assert tuning_seeds([4]) == ()
    assert tuning_seeds(range(16)) == (0, 1, 2, 3)


def test_the_best_on_the_tuning_seeds_stands_beside_the_default() -> None:
    sign = [one for one in variants(rules()) if one.family == "alf-lb sign no recentre"]
    overall = {"sign x0.3": 0.5, "sign x1": 0.4, "sign x3": 0.3, "sign small": 0.9}
    assert [(one.rule, role) for one, role in chosen(sign, overall)] == [
        ("sign x1", DEFAULT),
        ("sign x3", TUNED),
    ]
    assert [(one.rule, role) for one, role in chosen(sign, {**overall, "sign x3": 0.45})] == [
        ("sign x1", BOTH)
    ]
    # A setting that did not reach the end on all of these seeds is not judged, and not chosen.
    without = {rule: value for rule, value in overall.items() if rule != "sign x3"}
    assert chosen(sign, without)[-1] == (sign[1], BOTH)
    assert [role for _, role in chosen(sign[:1], overall)] == [ONLY]
    assert [role for _, role in chosen(sign[:2], {})] == ["x0.3", DEFAULT]


def test_how_late_prices_come_is_part_of_the_rule() -> None:
    plain = {**ALF, "schedule": "sign", "step_size": 1.0}
    late = {**plain, "every": 4, "lag": 2}
    found = variants({"a": plain, "b": late, "c": {**late, "step_size": 3.0}})
    assert [(one.family, one.setting, one.is_default) for one in found] == [
        ("alf-lb sign", "x1", True),
        ("alf-lb sign every=4 lag=2", "x1", True),
        ("alf-lb sign every=4 lag=2", "x3", False),
    ]
