"""What a program for TPUs moves: bytes counted by hand from a short program."""

import history
import scaling
import traffic
from traffic import Array, Traffic

# 10 x 21 float32 lie in tiles of 8 x 128: 16 x 128 x 4 = 8192 bytes, of which 840 are values.
PROGRAM = """HloModule jit_f

%fused (p: f32[10,21]) -> f32[10,21] {
  %p = f32[10,21]{1,0:T(8,128)} parameter(0)
  ROOT %twice = f32[10,21]{1,0:T(8,128)} add(%p, %p), backend_config={"estimated_cycles":"99"}
}

ENTRY %main (x: f32[10,21]) -> (f32[21,10], s32[]) {
  %x = f32[10,21]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %fetch = (f32[10,21]{1,0:T(8,128)S(1)}, f32[10,21]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %near = f32[10,21]{1,0:T(8,128)S(1)} copy-done(%fetch)
  %sum = f32[10,21]{1,0:T(8,128)} fusion(%near), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"70"}
  %free = f32[10,21]{1,0:T(8,128)} bitcast(%sum)
  %turned = f32[10,21]{0,1:T(8,128)} copy(%free), backend_config={"estimated_cycles":"30"}
  %sent = (f32[10,21]{0,1:T(8,128)}, f32[10,21]{0,1:T(8,128)}) all-reduce-start(%turned)
  %all = f32[10,21]{0,1:T(8,128)} all-reduce-done(%sent)
  %loop = (f32[10,21]{0,1:T(8,128)}, s32[]{:T(128)}) while(%pair0), condition=%c, body=%b
  %n = s32[]{:T(128)} constant(1)
  ROOT %pair = (f32[10,21]{0,1:T(8,128)}, s32[]{:T(128)}) tuple(%turned, %n)
}
"""


def test_bytes_of_a_program_are_those_counted_by_hand():
    """The fetch moves 8192 bytes, the sum writes 8192, the copy reads these and writes 24 x 128 x 4 = 12288.

    The reduction over devices reads and writes as many; a loop moves nothing itself.
    """
    assert traffic.read_traffic(PROGRAM) == Traffic(
        moved=3 * (8192 + 12288), padding=3 * (8192 + 12288) - 6 * 840, copied=8192 + 12288, cycles=100
    )


def test_arrays_are_padded_in_the_order_of_their_layout():
    (array,) = traffic.measure_arrays("bf16[8,65,512,21]{2,0,3,1:T(8,128)(2,1)}")
    assert array == Array(2 * 8 * 65 * 512 * 21, 2 * 8 * 65 * 512 * 21, False)  # 512 columns and 8 images fill tiles
    (array,) = traffic.measure_arrays("bf16[8,65,512,21]{3,2,1,0:T(8,128)(2,1)S(1)}")
    assert array == Array(2 * 8 * 65 * 512 * 21, 2 * 8 * 65 * 512 * 128, True)
    assert list(traffic.measure_arrays("(pred[3], f32[2,2]{1,0})")) == [Array(3, 3, False), Array(16, 16, False)]


def test_the_table_of_a_tpu_has_a_row_for_each_network(tmp_path, monkeypatch, capsys):
    found = {"moved": 17e9, "padding": 10e9, "copied": 6e9, "cycles": 99e6}
    monkeypatch.setattr(scaling, "read", lambda case: {"traffic": found} if case.dtype == "bfloat16" else None)
    file = tmp_path / "history.csv"
    scaling.list_traffic(history.Recorder("scaling", False, file, "a TPU"), "v5e:2x2", 4)
    rows = {(row.task, row.setting): (row.ours, row.unit) for row in history.read(file)}
    assert rows["bytes moved", "vgg16, 8 x 512², bfloat16"] == (17.0, "GB")
    assert rows["estimated cycles", "resnet34, 8 x 512², bfloat16"] == (99.0, "million")
    assert "| resnet34 | 17 | 10 | 6 | 99 |" in capsys.readouterr().out
