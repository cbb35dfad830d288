"""The tables of layers.py, made with small cases."""

import importlib.util
import json

import candidates
import history
import layers
import machine
import pytest

KERNELS, POOLS = ((4, 2, 4), (8, 4, 3)), (((1, 8, 8, 4), 3, 1),)


def test_a_call_has_the_same_name_in_the_process_that_prepares_it():
    """The cases reach it as JSON, which has no tuples."""
    for case in (*KERNELS, *POOLS):
        there = json.loads(json.dumps(case))
        assert candidates.name_call(there, "ours", "both") == candidates.name_call(case, "ours", "both")


def test_without_pytorch_its_times_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "describe_machine", lambda: "a machine")
    times = {"ours forward": [1.0, 2.0], "learned channels first forward": [4.0, 2.0]}
    times["learned channels last forward"] = [1.0, 3.0]
    assert layers.best_torch(times, "learned", "forward") == [1.0, 3.0]
    assert layers.best_torch(times, "fixed", "forward") == []
    case = layers.Case(history.Recorder("layers", True, tmp_path / "h.csv"), "a", "b", times["ours forward"])
    assert case.over("PyTorch", [3.0, 5.0]) == "2.75 [2.62, 2.88]"
    assert case.over("PyTorch", []) == ""
    assert len(history.read(tmp_path / "h.csv")) == 1


@pytest.mark.slow
def test_the_tables_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "describe_machine", lambda: "a machine")
    monkeypatch.setattr(layers, "CASES", KERNELS)
    monkeypatch.setattr(layers, "POOLS", POOLS)
    recorder = history.Recorder("layers", True, tmp_path / "history.csv")
    layers.transposed_tables(recorder, 2)
    layers.pooling_table(recorder, 2)
    rows = history.read(recorder.file)
    peers = {"nn.ConvTranspose", "jax.image.resize", "our learned one", "nn.max_pool"}
    if importlib.util.find_spec("torch"):
        peers |= {"PyTorch", "PyTorch interpolate"}
    assert {row.peer for row in rows} == peers
    tasks = [layers.LEARNED, layers.FIXED, layers.POOLING, *([layers.RELU_POOLING] if "PyTorch" in peers else [])]
    for task in tasks:
        for title in layers.PASSES.values():
            assert {row.setting for row in rows if row.task == f"{task}, {title}"} == (
                {"1x8x8x4, 3x3/2"} if layers.POOLING in task else {"4, 2, 4²", "8, 4, 3²"}
            )
    assert all(row.rounds == 2 and row.ratio_q1 <= row.ratio <= row.ratio_q3 for row in rows)
