"""What DALI does with an encoded image: it and `dali.py` are the only files that import DALI.

Reading, decoding, cropping and what is random happen in DALI's own threads, or on the GPU. Resizing
and colour jitter on the CPU are in `resize.py`, which DALI calls; on a GPU DALI resizes, and the
jitter is torch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nvidia.dali import fn, math, types

from proofrun.data import Shard
from proofrun.data.jitter import DRAWS
from proofrun.data.resize import resizer
from proofrun.recipe import ColorJitter, EvalProtocol, PaddedPlace, RandomArea, TrainInput


def _decoder_options(shard: Shard) -> dict[str, Any]:
    # As PIL decodes: chroma upsampled smoothly (on the GPU too), EXIF orientation ignored.
    return {
        "device": "cpu" if shard.device_id is None else "mixed",
        "output_type": types.DALIImageType.RGB,
        "adjust_orientation": False,
        "jpeg_fancy_upsampling": True,
    }


def augment(encoded: Any, spec: TrainInput, shard: Shard) -> tuple[Any, ...]:
    """Views, and on a GPU the draws of their jitter, which torch applies to the batch."""
    size = types.Constant(np.array([spec.image_size] * 2, np.int32), device="cpu")
    draws: tuple[Any, ...] = ()
    if spec.color_jitter is not None:
        draws = (fn.random.uniform(range=[-1.0, 1.0], shape=[DRAWS]),)
    crops = _crop(encoded, spec.crop, shard)
    if shard.device_id is None:
        images, draws = _resize(crops, size, spec.antialias, shard, spec.color_jitter, *draws), ()
    else:
        images = _resize(crops, size, spec.antialias, shard)
    if spec.flip_probability > 0:
        images = fn.flip(images, horizontal=fn.random.coin_flip(probability=spec.flip_probability))
    return images, *draws


def _resize(
    images: Any,
    size: Any,
    antialias: bool,
    shard: Shard,
    jitter: ColorJitter | None = None,
    *draws: Any,
) -> Any:
    """Images resized bilinearly to `size`, int32 (2,) for each: by the GPU, or by torch.

    By torch they get the jitter of `draws` too.
    """
    if shard.device_id is not None:
        return fn.resize(
            images,
            size=fn.cast(size, dtype=types.DALIDataType.FLOAT),
            interp_type=types.DALIInterpType.INTERP_LINEAR,
            antialias=antialias,
        )
    return fn.python_function(
        images,
        size,
        *draws,
        function=resizer(max(1, shard.threads), antialias, jitter),
        batch_processing=True,
        output_layouts="HWC",
    )


def _crop(encoded: Any, crop: RandomArea | PaddedPlace, shard: Shard) -> Any:
    if isinstance(crop, RandomArea):
        return fn.decoders.image_random_crop(
            encoded,
            random_area=list(crop.area),
            random_aspect_ratio=list(crop.ratio),
            num_attempts=10,  # as torchvision's RandomResizedCrop
            **_decoder_options(shard),
        )
    # A padded image is not made: the window may start outside, where all is black.
    places = [float(place) for place in range(-crop.pixels, crop.pixels + 1)]
    integer = types.DALIDataType.INT32
    return fn.slice(
        fn.decoders.image(encoded, **_decoder_options(shard)),
        start=fn.random.uniform(values=places, shape=[2], dtype=integer),
        shape=fn.peek_image_shape(encoded, dtype=integer, adjust_orientation=False)[0:2],
        axes=[0, 1],
        out_of_bounds_policy="pad",
    )


def protocol_graph(encoded: Any, protocol: EvalProtocol, shard: Shard) -> Any:
    """Resize and centre crop with torchvision's geometry, to the pixel.

    The long side is rounded down, and an odd margin is halved with round-half-to-even; DALI's own
    rules move half of all images by one pixel.
    """
    target, crop = protocol.resize_to, protocol.crop
    shape = fn.peek_image_shape(encoded, adjust_orientation=False)[0:2]
    if protocol.resize == "shorter_side":
        size = shape * target // math.min(shape[0], shape[1])
    else:
        size = shape * 0 + target
    decoded = fn.decoders.image(encoded, **_decoder_options(shard))
    images = _resize(
        decoded, fn.cast(size, dtype=types.DALIDataType.INT32), protocol.antialias, shard
    )
    half = (size - crop) // 2
    start = half + (half & (size - crop) & 1)
    return fn.slice(
        images,
        start=fn.cast(start, dtype=types.DALIDataType.INT32),
        shape=[crop, crop],
        axes=[0, 1],
    )
