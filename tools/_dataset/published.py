"""The archives as their publishers offer them: the one place for their checksums."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """MD5 in hexadecimal, and where it is known the size: then a cut file shows at once."""

    md5: str
    bytes: int | None = None


#: https://image-net.org/challenges/LSVRC/2012 (as torchvision has them; sizes: its server's).
IMAGENET = {
    "ILSVRC2012_devkit_t12.tar.gz": Published("fa75699e90414af021442c21a62c3abf"),
    "ILSVRC2012_img_val.tar": Published("29b22e2961454d5413ddabcf34fc5622", 6_744_924_160),
    "ILSVRC2012_img_train.tar": Published("1d675b47d978889d74fa0da5fadfb00e", 147_897_477_120),
}

#: https://www.cs.toronto.edu/~kriz/cifar.html: the python version and the binary version.
CIFAR10 = {
    "cifar-10-python.tar.gz": Published("c58f30108f718f92721af3b95e74349a"),
    "cifar-10-binary.tar.gz": Published("c32a1d4ab5d03f1284b67883e8d87530"),
}
