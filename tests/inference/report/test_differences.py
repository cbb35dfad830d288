"""What differs between runs."""

from drawn_reports import NAMES, draw_record, draw_run

from fcn_jax.config import AugmentConfig, OptimConfig
from fcn_jax.inference.report.differences import compare_runs


def test_only_what_differs_is_listed_with_the_value_of_each_run():
    augment = AugmentConfig(scale=(0.5, 2.0), crop=64)
    runs = [
        (draw_run(), draw_record()),
        (draw_run(augment=augment, optim=OptimConfig(class_weights=(1.0, 2.0))), draw_record()),
        (draw_run()._replace(contents="other"), draw_record(versions={"jax": "9"}, git=None)),
    ]
    found = compare_runs(runs)
    assert found["augment.crop"][1] == "64"
    assert found["augment.scale"][1] == "0.5 2.0"
    assert found["optim.class_weights"] == ["none", "1.0 2.0", "none"]
    assert found["contents of the data"] == ["abc123", "abc123", "other"]
    assert found["jax"] == ["1.2.3", "1.2.3", "9"]
    assert found["git"] == ["0123abcd+", "0123abcd+", "none"]
    assert found["Python"][2] == "none"
    assert set(found) == {
        "augment.crop", "augment.scale", "optim.class_weights", "contents of the data", "jax", "git", "Python"
    }  # fmt: skip


def test_equal_runs_differ_in_nothing():
    assert compare_runs([(draw_run(NAMES), draw_record())] * 2) == {}
