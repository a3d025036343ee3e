"""Every command on the embedded model: its JSON, its exit codes, what it says and what it leaves behind."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from subbyte.cli import app

MODEL = str(files("subbyte") / "data" / "pydoc-mini")
QUICK = ["--windows", "4", "--window", "64"]


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, arguments)
    assert "\x1b" not in done.output, "colour is for terminals"
    return done


def run_json(*arguments: str) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "out"
    done = run("quantize", MODEL, str(out), "--system", "rtn", "--bits", "4", "--group-size", "64")
    assert done.exit_code == 0, done.output
    return out


@pytest.mark.parametrize("command", ["demo", "systems", "quantize", "eval", "compare", "inspect", "doctor"])
def test_each_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "--json" in done.stdout
    assert command == "doctor" or f"subbyte {command}" in done.stdout, "an example"


def test_systems() -> None:
    found = run_json("systems")
    assert {"rtn", "gptq", "awq", "smoothquant"} <= {system["name"] for system in found}
    for system in found:
        assert {"name", "title", "paper", "options"} <= set(system)
        assert all({"name", "type", "default", "help"} <= set(option) for option in system["options"])
    assert "gptq" in run("systems").stdout
    assert run_json("systems", "gptq")["name"] == "gptq"
    assert "act_order" in run("systems", "gptq").stdout


def test_quantize_says_what_it_does(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("quantize", MODEL, str(out), "--system", "gptq", "--bits", "3", "--group-size", "64", "--samples", "8")
    assert done.exit_code == 0, done.output
    assert (out / "config.json").exists()
    assert "memory" in done.stderr
    assert "verified" in done.stdout
    assert f"subbyte.load({str(out)!r})" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_quantize_json(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run_json("quantize", MODEL, str(out), "--system", "rtn", "--group-size", "64", "--no-verify")
    assert found["out"] == str(out)
    assert 4 < found["bits_per_weight"] < 5


def test_quantize_from_a_recipe_file(tmp_path: Path) -> None:
    from subbyte.systems import rtn

    (tmp_path / "recipe.yaml").write_text(rtn(bits=5, group_size=128).to_yaml())
    out = tmp_path / "out"
    found = run_json("quantize", MODEL, str(out), "--recipe", str(tmp_path / "recipe.yaml"))
    assert 5 < found["bits_per_weight"] < 6


def test_eval(quantized: Path) -> None:
    found = run_json("eval", str(quantized), "--baseline", MODEL, *QUICK)
    assert {"perplexity", "kl", "top1_agreement", "bits_per_weight", "tokens"} <= set(found)
    assert found["tokens"] == 4 * 63
    assert 0 < found["kl"] < 0.1
    assert 0.8 < found["top1_agreement"] < 1
    assert 4 < found["bits_per_weight"] < 5
    alone = run_json("eval", MODEL, *QUICK)
    assert (alone["kl"], alone["top1_agreement"]) == (None, None)
    assert alone["bits_per_weight"] == 16
    assert "perplexity" in run("eval", str(quantized), *QUICK).stdout


def test_eval_on_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 50)
    arguments = ["eval", MODEL, "--text", str(tmp_path / "text.txt"), "--window", "32", "--windows", "0"]
    found = run_json(*arguments)
    assert found["windows"] > 3
    assert found == {**run_json(*arguments), "seconds": found["seconds"]}, "the same input, the same numbers"


def test_compare(tmp_path: Path) -> None:
    report = tmp_path / "out.html"
    arguments = ["--systems", "rtn,gptq", "--bits", "4,2", "--group-size", "64", "--samples", "4", *QUICK]
    found = run_json("compare", MODEL, *arguments, "--report", str(report))
    assert [(row["system"], row["bits"]) for row in found["rows"]] == [("rtn", 4), ("gptq", 4), ("rtn", 2), ("gptq", 2)]
    assert found["rows"][2]["kl"] > found["rows"][0]["kl"] > 0
    assert found["baseline"]["kl"] is None
    page = report.read_text()
    assert page.startswith("<!doctype html>")
    assert "--systems rtn,gptq --bits 4,2 --group-size 64" in page


def test_inspect(quantized: Path) -> None:
    found = run_json("inspect", str(quantized))
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    layer = by_name["model.layers.0.mlp.down_proj"]
    assert layer["scheme"].startswith("int4/g64")
    assert 4 < layer["bits_per_weight"] < 5
    assert "down_proj" in run("inspect", str(quantized)).stdout
    assert run_json("inspect", MODEL)["tensors"]


def test_doctor() -> None:
    found = run_json("doctor")
    assert "scalar" in found["cpu"]["paths"]
    assert {p["name"] for p in found["packages"]} >= {"torch", "matplotlib", "cuda-core"}
    text = run("doctor").stdout
    assert "CPU paths" in text
    assert "CUDA driver" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantize", MODEL, "OUT", "--system", "gpqt"], "did you mean 'gptq'"),
        (["quantize", MODEL, "OUT", "--system", "gptq", "--set", "damping=1"], "damp"),
        (["quantize", MODEL, "OUT", "--system", "gptq", "--set", "damp=x"], "gptq.damp"),
        (["quantize", MODEL, "OUT", "--system", "rtn", "--group-size", "96"], "a divisor of 128"),
        (["quantize", MODEL, "OUT", "--system", "rtn", "--format", "ggml"], "format"),
        (["quantize", MODEL, "OUT"], "--system"),
        (["quantize", "NOWHERE", "OUT", "--system", "rtn"], "NOWHERE"),
        (["quantize", MODEL, "FULL", "--system", "rtn"], "FULL"),
        (["quantize", MODEL, "OUT", "--system", "gptq", "--calibration", "EMPTY"], "EMPTY"),
        (["quantize", MODEL, "OUT", "--recipe", "EMPTY"], "recipe"),
        (["eval", "NOWHERE"], "NOWHERE"),
        (["eval", MODEL, "--text", "EMPTY"], "EMPTY"),
        (["eval", MODEL, "--text", "NOWHERE"], "NOWHERE"),
        (["compare", MODEL, "--systems", "rtn,gptx"], "did you mean 'gptq'"),
        (["compare", MODEL, "--bits", "four"], "--bits"),
        (["compare", MODEL, "--report", "NOWHERE/out.html"], "NOWHERE/out.html"),
        (["demo", "--report", "NOWHERE/out.html"], "NOWHERE/out.html"),
        (["inspect", "NOWHERE"], "NOWHERE"),
        (["systems", "gptx"], "did you mean 'gptq'"),
    ],
)
def test_bad_input_leaves_with_2_a_message_and_nothing_else(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "EMPTY").write_text("")
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "file").write_text("kept")
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert message in " ".join(done.stderr.split())
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["EMPTY", "FULL", "file"]
