# shellcheck shell=sh
# Facts of this machine: where data, logs and caches lie, how many threads to use. Exports only;
# what is set already wins. Hyper-parameters live in recipes/<model>/recipe.yaml.

# ImageNet as train/<wnid>/*, val/<wnid>/*, with or without train.txt and val.txt
export IMAGENET_TRAIN_DATASET="${IMAGENET_TRAIN_DATASET:-data/imagenet}"
# CIFAR-10 as PNG files, made by `python tools/dataset.py prepare cifar10`
export CIFAR10_DATASET="${CIFAR10_DATASET:-data/cifar10}"
# the embedded digits, made by `python tools/dataset.py prepare digits`
export DIGITS_DATASET="${DIGITS_DATASET:-data/digits}"
# one folder a run: <logs>/<run name>/<number>/
export PROOFRUN_LOGS="${PROOFRUN_LOGS:-logs}"
# Manifests of data that cannot be written: by default in .cache of the log folder.
# export PROOFRUN_CACHE=/var/cache/proofrun
# seconds without a sign of life after which a rank is taken for hung, killed and started again:
# more than a save, a step or the loading of a batch can take
export RANK_TIMEOUT="${RANK_TIMEOUT:-600}"
# Threads of one rank, to decode and to compute: launch shares the cores out unless these are set.
# export PROOFRUN_LOADER_THREADS=8
# export OMP_NUM_THREADS=8
# Several machines: the same script on each, with these. Slurm and Kubeflow set their own.
# export NNODES=2                    how many
# export NODE_RANK=0                 which of them this is, from 0
# export RDZV_ENDPOINT=node0:29400   a free port of node 0, the same on all
# export NODES_TIMEOUT=300           seconds to wait for the others
