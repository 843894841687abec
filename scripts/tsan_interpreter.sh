#!/usr/bin/env bash
# Builds a free-threaded CPython under ThreadSanitizer, to find data races in the core
# while real Python threads drive it (the module must be built with -Zsanitizer=thread).
#
#   scripts/tsan_interpreter.sh
#
# Prints the interpreter's absolute path as the last line on stdout, progress on stderr.
# About 5 minutes on 2 cores (10 on busy ones); kept in
# ${MANYHANDS_CACHE:-${XDG_CACHE_HOME:-~/.cache}/manyhands}/cpython-ft-<version>-tsan.
# Beside its bin directory lie tsan_suppressions.txt, the races CPython knows of itself,
# and tsan_options, what TSAN_OPTIONS should hold. Run it as
#
#   TSAN_OPTIONS="$(cat PREFIX/tsan_options)" setarch -R PYTHON ...
#
# It exits with 66 if a race was reported. setarch -R because ThreadSanitizer wants fixed
# address ranges for its shadow and does not start where the kernel randomises too much.
set -euo pipefail

# The path is the only thing that may reach stdout, whatever the tools below print.
exec 3>&1 1>&2
# shellcheck source-path=SCRIPTDIR source=cpython_source.sh
source "$(dirname "${BASH_SOURCE[0]}")/cpython_source.sh"

# The version this was rehearsed with; set MANYHANDS_TSAN_LLVM where another is packaged.
# Its runtime ends up in the interpreter and serves the Rust module too, so the
# instrumentation of both must agree with it.
llvm=${MANYHANDS_TSAN_LLVM:-16}

done_with() {
    local prefix=${1%/bin/*}
    say "$("$1" -VV)"
    say "suppressions: $prefix/tsan_suppressions.txt"
    say "run: TSAN_OPTIONS=\"\$(cat $prefix/tsan_options)\" setarch -R $1 ..."
    printf '%s\n' "$1" >&3
    exit 0
}

# under_tsan PYTHON ARGUMENT...: run it as the header says one should.
under_tsan() {
    local prefix=${1%/bin/*}
    TSAN_OPTIONS=$(cat "$prefix/tsan_options") setarch -R "$@"
}

use_finished_build() {
    local found
    found=$(finished_build "$cache"/cpython-ft-*[0-9]-tsan)
    [[ -n $found ]] || return 0
    under_tsan "$found" -c 'import ssl, threading' && done_with "$found"
    say "$found no longer works; building it again."
}

write_options() { # PREFIX
    # A copy, since the build directory does not outlive this run.
    cp "$scratch/build/Tools/tsan/suppressions_free_threading.txt" "$1/tsan_suppressions.txt"
    # handle_segv=0: faulthandler is to print Python's stacks. The symbolizer by its whole
    # path: another version on PATH may not read this one's debug information. The prefix
    # is the build directory's, so that a report says Objects/call.c and little more.
    printf 'handle_segv=0:suppressions=%s:external_symbolizer_path=%s:strip_path_prefix=%s\n' \
        "$1/tsan_suppressions.txt" "$(command -v "llvm-symbolizer-$llvm")" "$scratch/build/" >"$1/tsan_options"
}

# An interpreter that reports nothing proves nothing: let two threads write the same bytes.
# Many rounds, since a lock inside CPython orders the two by chance in one round of five.
reports_a_planted_race() { # PYTHON
    local status=0
    under_tsan "$1" -c '
import ctypes, threading
target = ctypes.create_string_buffer(8)
start = threading.Barrier(2)
def write():
    start.wait()
    for _ in range(1_000):
        ctypes.memset(target, 1, 8)
for _ in range(30):
    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
' >"$scratch/planted.log" 2>&1 || status=$?
    [[ $status == 66 ]] && grep -q 'data race.* in .*memset' "$scratch/planted.log"
}

setarch -R true 2>/dev/null ||
    die "setarch -R is not permitted here; run the container with a seccomp profile that allows personality(2)."
use_finished_build
make_scratch
take_lock cpython-ft-tsan
# Whoever held the lock has just built it.
use_finished_build

# llvm for the symbolizer: without it a report is a list of addresses.
need_packages "${build_packages[@]}" "clang-$llvm" "libclang-rt-$llvm-dev" "llvm-$llvm"
get_cpython_source
prefix=$cache/cpython-ft-$version-tsan
python=$prefix/bin/python${version%.*}t

# The build runs the interpreter that it builds: under the same terms as everybody else,
# but silent, since CPython's own races are not what stops a build.
launcher=(env TSAN_OPTIONS=handle_segv=0:report_bugs=0 setarch -R)
build_cpython "$prefix" --with-thread-sanitizer CC="clang-$llvm" CXX="clang++-$llvm" \
    CFLAGS="-O2 -g -fno-omit-frame-pointer"
write_options "$prefix"

is_free_threaded "$python" under_tsan ||
    die "the interpreter just built lacks a module, runs with the GIL or reports a race at once; read $build_log."
reports_a_planted_race "$python" || {
    tail -n 20 "$scratch/planted.log"
    die "the interpreter just built does not report a planted race; it is of no use. Read $build_log."
}
finish_build "$prefix" "$python"
done_with "$python"
