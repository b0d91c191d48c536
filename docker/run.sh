#!/usr/bin/env bash
# One run in a container: bash docker/run.sh [options] RUN_NAME [flags of the run]
#   --image IMAGE     the image: proofrun:<backend> unless given
#   --mount           mount this checkout over the image's source; any base image with the packages
#   --backend NAME    cpu, cuda, npu or mlu; from the device in the run's name unless given
#   --cards LIST      all (default), or indices such as 0,1
#   --data DIR        ImageNet, or CIFAR-10 for a run on it; mounted read-only
#                     ($IMAGENET_TRAIN_DATASET or $CIFAR10_DATASET unless given)
#   --logs DIR        gets the run folders ($PROOFRUN_LOGS, logs/ unless given)
#   --shm SIZE        shared memory for the loaders and the collectives (8g)
#   --network NAME    none (default; host where NNODES is above 1)
#   --name NAME       of the container, and its host name
#   --env NAME[=VAL]  a further environment variable; those of env.sh go along by themselves
#   --driver          also mount what the vendor's driver keeps on the host, see docker/README.md
#   --dry-run         print the command and stop
# Any other command than a run's name is run as it is: bash docker/run.sh --image IMAGE bash -c '…'
set -euo pipefail
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
say() { echo "docker/run.sh: $*" >&2; }
die() { local code="$1"; shift; say "$*"; exit "$code"; }
want() { [[ $# -ge 2 && -n "$2" && "$2" != -* ]] || die 2 "$1 needs a value"; }

image="" mount="" backend="" cards=all driver="" dry="" network="" shm=8g
asked_data="" logs="" name=() extra=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --image) want "$@"; image="$2"; shift 2 ;;
    --backend) want "$@"; backend="$2"; shift 2 ;;
    --cards) want "$@"; cards="$2"; shift 2 ;;
    --data) want "$@"; asked_data="$2"; shift 2 ;;
    --logs) want "$@"; logs="$2"; shift 2 ;;
    --shm) want "$@"; shm="$2"; shift 2 ;;
    --network) want "$@"; network="$2"; shift 2 ;;
    --name) want "$@"; name=(--name "$2" --hostname "$2"); shift 2 ;;
    --env) want "$@"; extra+=(-e "$2"); shift 2 ;;
    --mount) mount=1; shift ;;
    --driver) driver=1; shift ;;
    --dry-run) dry=1; shift ;;
    --help | -h) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    --) shift; break ;;
    -*) die 2 "unknown option $1; see --help" ;;
    *) break ;;
  esac
done
[[ $# -gt 0 ]] || die 2 "which run? for example: bash docker/run.sh GoogLeNet-Digits_FP32_10E_1CPU_Train"
for word in "$@"; do
  case "$word" in
    # inside the container they would name a folder that ends with it
    --logs | --data | --logs=* | --data=*) die 2 "${word%%=*} goes before the run's name: it is a folder of this host" ;;
  esac
done
[[ "$cards" =~ ^(all|[0-9]+(,[0-9]+)*)$ ]] || die 2 "--cards $cards: write it as all, or as 0,1"

# shellcheck source=env.sh
. "$root/env.sh"
in_root() { if [[ "$1" == /* ]]; then echo "$1"; else echo "$root/$1"; fi; }
logs="${logs:-$(in_root "$PROOFRUN_LOGS")}"
case "$1" in
  *-Cifar10_*) set=cifar10 variable=CIFAR10_DATASET ;;
  *) set=imagenet variable=IMAGENET_TRAIN_DATASET ;;
esac
data="${asked_data:-$(in_root "${!variable}")}"

if [[ -z "$backend" ]]; then
  case "$1" in
    *GPU_* | *GPUs_*) backend=cuda ;;
    *NPU_* | *NPUs_*) backend=npu ;;
    *MLU_* | *MLUs_*) backend=mlu ;;
    *) backend=cpu ;;
  esac
fi
image="${image:-proofrun:$backend}"

# Device nodes, and no more of the host than these. A node that its group alone may open lends the
# container that group.
devices=() reasons=()
nodes() { # NODE…: those that exist
  local node
  for node in "$@"; do
    [[ -e "$node" ]] || continue
    devices+=(--device "$node")
    [[ "$(stat -c %A "$node")" == *rw? ]] || devices+=(--group-add "$(stat -c %g "$node")")
  done
}
numbered() { # PREFIX: the cards asked for
  local node number
  local -a asked
  IFS=, read -ra asked <<<"$cards"
  if [[ "$cards" == all ]]; then
    for node in "$1"[0-9]*; do
      if [[ -e "$node" ]]; then nodes "$node"; fi
    done
  else
    for number in "${asked[@]}"; do
      [[ -e "$1$number" ]] || die 13 "this host has no $1$number: --cards names the cards that it has"
      nodes "$1$number"
    done
  fi
  [[ ${#devices[@]} -gt 0 ]] || die 13 "this host has no $1*: is the driver of the $backend cards loaded?"
}
bind() { # SOURCE TARGET [readonly]: a mount, quoted as --mount reads it where a path needs that
  local source="src=$1"
  if [[ "$source" == *[,\"]* ]]; then source="\"${source//\"/\"\"}\""; fi
  echo "type=bind,$source,dst=$2${3:+,$3}"
}
driver_path() { # REASON PATH…: mounted read-only
  local path reason="$1"
  shift
  for path in "$@"; do
    [[ -e "$path" ]] || continue
    devices+=(--mount "$(bind "$path" "$path" readonly)")
    reasons+=("$path: $reason")
  done
}
case "$backend" in
  cpu)
    [[ -z "$driver" ]] || die 2 "--driver: the CPU needs no driver"
    [[ "$cards" == all ]] || die 2 "--cards: this run is on the CPU"
    ;;
  cuda)
    # the NVIDIA container toolkit adds the nodes and the driver's libraries itself
    if [[ "$cards" == all ]]; then devices=(--gpus all); else devices=(--gpus "\"device=$cards\""); fi
    [[ -z "$driver" ]] || die 2 "--driver: the NVIDIA container toolkit mounts the driver itself"
    ;;
  npu)
    numbered /dev/davinci
    nodes /dev/davinci_manager /dev/devmm_svm /dev/hisi_hdc
    [[ -z "$driver" ]] || driver_path "CANN loads the driver's libraries from the host, of the version of its kernel module" \
      /usr/local/Ascend/driver/lib64 /usr/local/Ascend/driver/version.info /usr/local/dcmi /etc/ascend_install.info
    ;;
  mlu)
    numbered /dev/cambricon_dev
    nodes /dev/cambricon_ctl
    for node in /dev/cambricon_ipcm[0-9]*; do nodes "$node"; done
    [[ -z "$driver" ]] || driver_path "shows the state of the cards, of the version of the host's driver" /usr/bin/cnmon
    ;;
  *) die 2 "unknown backend '$backend': cpu, cuda, npu or mlu" ;;
esac

# made here, as the calling user: Docker would make it as root
if [[ -z "$dry" ]]; then mkdir -p -- "$logs" 2>/dev/null || die 33 "cannot make the log folder $logs"; fi
logs="$(realpath -m -- "$logs")"
if [[ -e "$logs" ]]; then
  [[ -d "$logs" && -w "$logs" ]] ||
    die 33 "the log folder $logs cannot be written by $(id -un 2>/dev/null || id -u)"
fi

command=(docker run --rm --init)
if [[ -t 0 && -t 1 ]]; then command+=(-it); fi
command+=(
  --user "$(id -u):$(id -g)"
  --cap-drop ALL --security-opt no-new-privileges
  --read-only --tmpfs "/tmp:rw,exec,mode=1777"
  --shm-size "$shm"
  --network "${network:-$([[ "${NNODES:-1}" == 1 ]] && echo none || echo host)}"
  # a run saves before it stops
  --stop-timeout 60
  --mount "$(bind "$logs" /logs)" -e PROOFRUN_LOGS=/logs
  "${name[@]}"
)
if [[ -d "$data" ]]; then
  data="$(realpath -- "$data")"
  command+=(--mount "$(bind "$data" "/data/$set" readonly)" -e "$variable=/data/$set")
elif [[ -n "$asked_data" ]]; then
  die 20 "the data folder $data does not exist, or is no folder"
fi
if [[ -n "$mount" ]]; then
  command+=(--mount "$(bind "$root" /workspace/proofrun readonly)" --workdir /workspace/proofrun
    --entrypoint docker/entrypoint.sh
    -e "PROOFRUN_COMMIT=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)")
fi
for variable in NNODES NODE_RANK RDZV_ENDPOINT NODES_TIMEOUT RANK_TIMEOUT OMP_NUM_THREADS PROOFRUN_LOADER_THREADS; do
  if [[ -n "${!variable:-}" ]]; then command+=(-e "$variable=${!variable}"); fi
done
command+=("${extra[@]}" "${devices[@]}" "$image" "$@")

for reason in "${reasons[@]}"; do say "mounted $reason"; done
printf '%q ' "${command[@]}" >&2
echo >&2
if [[ -n "$dry" ]]; then exit 0; fi
command -v docker >/dev/null || die 14 "there is no docker command: apt-get install docker.io"
exec "${command[@]}"
