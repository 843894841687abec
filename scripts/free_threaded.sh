#!/usr/bin/env bash
# Finds a free-threaded CPython (3.14t or 3.13t) to run the tests on, or builds one.
#
#   scripts/free_threaded.sh
#
# Prints the interpreter's absolute path as the last line on stdout, progress on stderr.
# Looks at $MANYHANDS_FT_PYTHON, python3.14t and python3.13t on PATH, and an earlier build;
# else builds Debian's source in about 2.5 minutes on 2 cores and keeps the result in
# ${MANYHANDS_CACHE:-${XDG_CACHE_HOME:-~/.cache}/manyhands}/cpython-ft-<version>.
# Remove that directory and cpython-source beside it to have it look for a newer one.
set -euo pipefail

# The path is the only thing that may reach stdout, whatever the tools below print.
exec 3>&1 1>&2
# shellcheck source-path=SCRIPTDIR source=cpython_source.sh
source "$(dirname "${BASH_SOURCE[0]}")/cpython_source.sh"

# done_with PYTHON: print its path and leave.
done_with() {
    say "$("$1" -VV)"
    printf '%s\n' "$1" >&3
    exit 0
}

# usable PYTHON: as is_free_threaded, with the complaints of a wrong one kept quiet.
usable() { [[ -x $1 ]] && is_free_threaded "$1" 2>/dev/null; }

# The path with links resolved in its directory only: a venv's python is a link, and
# resolving that one would lose the venv.
absolute() { printf '%s/%s\n' "$(cd "$(dirname "$1")" && pwd -P)" "$(basename "$1")"; }

use_one_at_hand() {
    local name found
    if [[ -n ${MANYHANDS_FT_PYTHON:-} ]]; then
        found=$(command -v "$MANYHANDS_FT_PYTHON") || found=$MANYHANDS_FT_PYTHON
        usable "$found" ||
            die "MANYHANDS_FT_PYTHON=$MANYHANDS_FT_PYTHON is no whole free-threaded CPython 3.13 or 3.14; name another or unset it."
        done_with "$(absolute "$found")"
    fi
    for name in python3.14t python3.13t; do
        found=$(command -v "$name") && usable "$found" && done_with "$(absolute "$found")"
    done
    return 0
}

use_finished_build() {
    local found
    found=$(finished_build "$cache"/cpython-ft-*[0-9])
    [[ -n $found ]] || return 0
    usable "$found" && done_with "$found"
    # Libraries that it was linked with went away in an upgrade, most likely.
    say "$found no longer works; building it again."
}

use_one_at_hand
use_finished_build
make_scratch
take_lock cpython-ft
# Whoever held the lock has just built it.
use_finished_build

need_packages "${build_packages[@]}"
get_cpython_source
prefix=$cache/cpython-ft-$version
python=$prefix/bin/python${version%.*}t

build_cpython "$prefix" CFLAGS=-O2
is_free_threaded "$python" ||
    die "the interpreter just built lacks a module or runs with the GIL; read $build_log, install what configure missed and run this again."
{ "$python" -m venv "$scratch/venv" && "$scratch/venv/bin/python" -m pip --version; } ||
    die "the interpreter just built cannot make a venv with pip; read $build_log."
finish_build "$prefix" "$python"
done_with "$python"
