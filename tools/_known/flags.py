"""The flags of the published Ascend recipe. None has a default: what is not given is the recipe's.

The comment of a flag says what it becomes; `tools/_known/reading.py` does it.
"""

from __future__ import annotations

import argparse

from proofrun.errors import Parser, UsageError, whole


def training_parser() -> Parser:
    """The flags of `train.py`."""
    parser = Parser(
        prog="train.py",
        description="Train as the Ascend recipe's train.py does: its flags, read into a run of a "
        "recipe here. A value that is the recipe's own changes nothing; another is an override.",
    )
    _what(parser)
    values = parser.add_argument_group("the recipe's values (another value is an override)")
    values.add_argument("--per_batch_size", type=whole(1), metavar="N", help="images per card")
    values.add_argument("--lr_scheduler", choices=("exponential", "cosine_annealing"))
    values.add_argument("--lr", type=float, metavar="X")
    values.add_argument("--lr_epochs", type=_numbers, metavar="N,N,…", help="of exponential")
    values.add_argument("--lr_gamma", type=float, metavar="X", help="of exponential")
    values.add_argument("--eta_min", type=float, metavar="X", help="of cosine_annealing")
    values.add_argument("--max_epoch", type=whole(1), metavar="N")
    values.add_argument("--warmup_epochs", type=whole(0), metavar="N")
    values.add_argument("--weight_decay", type=float, metavar="X")
    values.add_argument("--momentum", type=float, metavar="X")
    values.add_argument("--is_dynamic_loss_scale", type=_switch, metavar="0|1")
    values.add_argument("--loss_scale", type=float, metavar="X")
    values.add_argument("--label_smooth", type=_switch, metavar="0|1")
    values.add_argument("--label_smooth_factor", type=float, metavar="X")
    place = parser.add_argument_group("where and how")
    place.add_argument("--ckpt_path", metavar="DIR", help="log folder, checkpoints in it (--logs)")
    place.add_argument(
        "--log_interval", type=whole(1), metavar="N", help="steps between log points"
    )
    nothing = _nothing(parser)
    nothing.add_argument("--ckpt_interval", metavar="N", help="each epoch is saved")
    nothing.add_argument("--is_save_on_master", metavar="0|1", help="rank 0 saves, for all ranks")
    other = parser.add_argument_group("otherwise here")
    other.add_argument("--T_max", type=whole(1), metavar="N", help="max_epoch, or an error")
    other.add_argument("--pretrained", metavar="FILE", help="an error: a run goes on by itself")
    return parser


def scoring_parser() -> Parser:
    """The flags of `test.py`: ours, and those of the Ascend recipe."""
    parser = Parser(
        prog="test.py",
        description="Score weights: a file, a checkpoint, a run folder, or a folder of "
        "checkpoints, which are ranked. Accuracy by every protocol of the recipe, then latency.",
    )
    parser.add_argument("weights", nargs="?", metavar="PATH", help="also as --pretrained PATH")
    own = parser.add_argument_group("which run (by default what the weights say)")
    own.add_argument("--run", metavar="RUN_NAME", help="e.g. GoogLeNet_FP16_8GPUs_Infer")
    own.add_argument("--nproc_per_node", type=whole(1), metavar="N", help="cards (default 1)")
    own.add_argument("--precision", choices=("FP32", "TF32", "AMP", "BF16", "FP16"))
    own.add_argument("--loader", choices=("dali", "torchvision", "synthetic"))
    own.add_argument("--no-latency", action="store_true", help="accuracy alone")
    own.add_argument("--data", dest="data_dir", metavar="DIR", help="data folder (default: env.sh)")
    own.add_argument("--logs", dest="log_path", metavar="DIR", help="log folder (default: env.sh)")
    _what(parser)
    known = parser.add_argument_group("as in the Ascend recipe")
    known.add_argument("--pretrained", metavar="PATH", help="a file, or a folder: each in it")
    known.add_argument("--per_batch_size", type=whole(1), metavar="N", help="images per card")
    known.add_argument("--log_path", metavar="DIR", help="log folder (--logs)")
    _nothing(parser)
    return parser


def launch_parser() -> Parser:
    """The flags of `launch.py`, then a script and its own flags."""
    parser = Parser(
        prog="launch.py",
        description="Start train.py or test.py on the cards of this machine.",
    )
    parser.add_argument("--nproc_per_node", type=whole(1), metavar="N", help="cards (default 1)")
    parser.add_argument("--visible_devices", metavar="0,1,…", help="only these cards are used")
    parser.add_argument("--env_sh", metavar="FILE", help="read before the checkout's env.sh")
    parser.add_argument("--mode", choices=("train", "test"), help="must fit the script")
    _nothing(parser, shared=False).add_argument(
        "--server_id", metavar="ID", help="machines meet by NNODES, NODE_RANK and RDZV_ENDPOINT"
    )
    parser.add_argument("script", metavar="SCRIPT", help="tools/train.py or tools/test.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="its flags")
    return parser


def _what(parser: Parser) -> None:
    what = parser.add_argument_group("which model on which data")
    what.add_argument("--backbone", metavar="NAME", help="googlenet or inceptionv2")
    what.add_argument("--num_classes", type=whole(2), metavar="N", help="says which data set")
    what.add_argument("--dataset", metavar="NAME", help="where two have as many classes")
    what.add_argument("--data_dir", metavar="DIR", help="data folder (--data)")
    what.add_argument("--image_size", type=_side, metavar="N,N", help="the recipe's, or an error")


def _nothing(parser: Parser, shared: bool = True) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("accepted, and nothing to do here")
    if shared:
        group.add_argument("--is_distributed", metavar="0|1", help="--nproc_per_node says it")
    return group


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise argparse.ArgumentTypeError(f"{text!r}: give 0 or 1")
    return text == "1"


def _numbers(text: str) -> list[int]:
    return [whole(1)(word.strip()) for word in text.split(",")]


def _side(text: str) -> int:
    sides = _numbers(text)
    if len(set(sides)) != 1 or len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text!r}: inputs are square, like 224,224")
    return sides[0]


def parse_launch(argv: list[str]) -> argparse.Namespace:
    """The command line of `launch.py`. Raises UsageError."""
    options = launch_parser().parse_args(argv)
    name = options.script.replace("\\", "/").rsplit("/", 1)[-1]
    if name not in ("train.py", "test.py"):
        raise UsageError(f"{options.script}: launch.py starts tools/train.py or tools/test.py")
    options.task = name.removesuffix(".py")
    if options.mode not in (None, options.task):
        raise UsageError(f"--mode {options.mode} does not fit {options.script}")
    return options
