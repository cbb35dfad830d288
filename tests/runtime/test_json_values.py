"""Dataclasses and NumPy values to JSON values, and dataclasses back."""

import dataclasses
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest
from full_config import FROM_RUN, FROM_STREAMS, FULL, FULL_OPTIONS, flatten
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_jax.config import Config, RunOptions
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.errors import InputError
from fcn_jax.presets import PRESETS
from fcn_jax.runtime.json_values import from_json, parse_json, to_json

# Names of fields of all parts of a configuration.
FIELDS = sorted({name for key in flatten({**asdict(Config()), **asdict(RunOptions())}) for name in key.split(".")})


@dataclass(frozen=True)
class Inner:
    values: tuple[float, ...] = (1.0, 2.0)
    folder: Path | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    folder: Path = Path("data")
    pairs: tuple[tuple[str, float], ...] = ()
    name: str = "outer"


def test_values_become_those_of_json():
    value = {
        "array": np.array([[1, 2]], np.uint8),
        "numbers": (np.float32(0.5), np.int64(3), np.bool_(True), 7, None, "text"),
        "lost": [np.nan, np.float32(np.inf), -np.inf],
        "path": Path("a") / "b",
        "inner": Inner(),
    }
    plain = to_json(value)
    assert plain == {
        "array": [[1, 2]],
        "numbers": [0.5, 3, True, 7, None, "text"],
        "lost": [None, None, None],
        "path": str(Path("a") / "b"),
        "inner": {"values": [1.0, 2.0], "folder": None},
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@pytest.mark.parametrize(
    "value",
    [
        Outer(),
        Outer(maybe=Inner((3.0,), Path("x")), folder=Path("/y"), pairs=(("bias", 2.0), ("fc", 0.5)), name=""),
        Outer(inner=Inner(())),
    ],
)
def test_dataclasses_come_back_from_json(value):
    assert from_json(Outer, json.loads(json.dumps(to_json(value)))) == value


def test_missing_fields_get_defaults_and_unknown_ones_are_refused():
    assert from_json(Outer, {"inner": {"folder": "x"}}) == Outer(inner=Inner(folder=Path("x")))
    with pytest.raises(InputError, match=r"\['nome'\], which Outer of this version does not know"):
        from_json(Outer, {"nome": 1})
    with pytest.raises(InputError, match=r"\['deep'\], which Inner"):
        from_json(Outer, {"maybe": {"deep": 1}})


CONFIGURATIONS = {
    "default": (Config(), RunOptions()),
    "full": (FULL, FULL_OPTIONS),
    "from a run": (FROM_RUN, FULL_OPTIONS),
    "from several runs": (FROM_STREAMS, FULL_OPTIONS),
    **{name: (preset.config, preset.options) for name, preset in PRESETS.items()},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations_come_back_from_json(name):
    config, options = CONFIGURATIONS[name]
    filled = fill_config(config)
    for value in (config, options, filled, fill_options(options, filled)):
        back = from_json(type(value), json.loads(json.dumps(to_json(value), allow_nan=False)))
        assert back == value
        assert hash(back) == hash(value)
        # Types as well: 1 equals 1.0, and a list may stand where a tuple was.
        before, after = flatten(dataclasses.asdict(value)), flatten(dataclasses.asdict(back))
        assert {name: type(leaf) for name, leaf in after.items()} == {name: type(leaf) for name, leaf in before.items()}


@pytest.mark.parametrize(("where", "kind"), [((), "Config"), (("optim",), "OptimConfig")])
def test_a_field_of_another_version_is_named_with_its_part(where, kind):
    values = to_json(Config())
    inner = values
    for name in where:
        inner = inner[name]
    inner["nesterov"] = True
    with pytest.raises(InputError, match=rf"\['nesterov'\], which {kind} of this version"):
        from_json(Config, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"head": "fcn4s"}}, r"model\.head is 'fcn4s'; it must be of the type Literal\['fcn32s'"),
        ({"model": {"output_stride": True}}, r"model\.output_stride is True"),
        (
            {"model": {"input": {"mean": [1.0, 2.0]}}},
            r"model\.input\.mean has 2 values and model\.input\.std 3",
        ),
        ({"model": {"weights": "a\0"}}, r"model\.weights is 'a\\x00'"),
        ({"optim": {"rate_factors": [["score"]]}}, r"optim\.rate_factors is \['score'\]"),
        ({"optim": {"power": 10**400}}, r"optim\.power is 10+\.\.\.0+; it must be of the type float"),
        ({"seed": True}, "seed is True; it must be of the type int"),
        ({"staged": 1}, "staged is 1; it must be of the type bool"),
        ({"steps": 2**63}, "steps is 9223372036854775808"),
        ({"data": None}, "data is None; it must be of the type DataConfig"),
        ([], r"the value is \[\]; it must be of the type Config"),
    ],
)
def test_a_stored_value_of_another_type_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        from_json(Config, values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.dictionaries(st.sampled_from(FIELDS), JSON)))
def test_any_json_gives_a_configuration_or_a_clear_error(values):
    for kind in (Config, RunOptions):
        try:
            value = from_json(kind, values)
        except InputError:
            continue
        again = from_json(kind, json.loads(json.dumps(to_json(value))))
        assert again == value or "nan" in repr(value) or "inf" in repr(value)


def test_a_whole_number_may_stand_for_a_float():
    assert repr(from_json(Config, {"model": {"input": {"mean": [1, 2, 3]}}}).model.input.mean) == "(1.0, 2.0, 3.0)"


def test_json_that_is_nested_too_deeply():
    assert parse_json("[1]") == [1]
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


def test_a_stored_value_outside_its_range_is_refused():
    with pytest.raises(InputError, match=r"optim\.momentum is 2\.0"):
        from_json(Config, {"optim": {"momentum": 2.0}})
