"""The shipped launch settings are ones that accelerate reads."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from expunge.cli import configs as command
from expunge.core.errors import ExpungeError
from expunge.engine import configs

KINDS = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


def test_these_settings_are_shipped() -> None:
    assert configs.names() == sorted(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_them_and_leaves_precision_and_steps_to_the_run(name: str) -> None:
    read = load_config_from_file(str(configs.path(name)))
    assert read.distributed_type == KINDS[name]
    assert read.mixed_precision == "no"
    assert read.num_processes == 2
    if name == "fsdp2":
        assert read.fsdp_config["fsdp_version"] == 2
    if name.startswith("zero"):
        assert read.deepspeed_config["zero_stage"] == int(name[-1])
        assert read.deepspeed_config["gradient_accumulation_steps"] == 1


def test_unknown_settings_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ExpungeError, match="fsdp2") as caught:
        configs.path("fsdp")
    assert caught.value.code == "E-USE-003"


def test_the_command_prints_paths(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["zero3"]) == 0
    assert Path(capsys.readouterr().out.strip()) == configs.path("zero3")
    assert command.main(["zero9"]) == 2
