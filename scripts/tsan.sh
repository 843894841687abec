#!/usr/bin/env bash
# Runs tests with the core, and CPython under it, instrumented by ThreadSanitizer.
#
#   scripts/tsan.sh                       # the races, but for those with processes of their own
#   scripts/tsan.sh tests/test_pause.py   # what pytest is given instead
#
# Exit status 1 if a report has a frame of ours, or a test fails for another reason than its time limit. Reports about
# CPython alone are counted, and do not fail: they are its own. All reports are kept in target/tsan/reports.
#
# The interpreter is scripts/tsan_interpreter.sh's: free-threaded, built by clang. The extension is built by the stable
# toolchain with the unstable sanitizer flag allowed. std is not instrumented: the core's locks are parking_lot's in this
# build (crates/core/src/sync.rs), the seam's too; what is left of std is in scripts/tsan_suppressions.txt with the reason.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

triple=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target}/tsan
site=$target/site
reports=$target/reports

python=$(scripts/tsan_interpreter.sh)
prefix=${python%/bin/*}
options=$(cat "$prefix/tsan_options")

# One file of suppressions is all that ThreadSanitizer takes.
mkdir -p "$site" "$reports"
cat "$prefix/tsan_suppressions.txt" scripts/tsan_suppressions.txt >"$target/suppressions.txt"
options=${options/suppressions=$prefix\/tsan_suppressions.txt/suppressions=$target/suppressions.txt}

say "building the extension"
# PyO3 runs the interpreter to ask what it is: silent, and at fixed addresses, like every run of it.
env RUSTC_BOOTSTRAP=1 PYO3_PYTHON="$python" PYO3_BUILD_EXTENSION_MODULE=1 CARGO_TARGET_DIR="$target" \
    TSAN_OPTIONS="$options:report_bugs=0" \
    RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg manyhands_tsan --cfg pyo3_disable_reference_pool" \
    setarch -R cargo build --quiet -p manyhands-py --features points --target "$triple"

# No virtual environment: to make one, this interpreter takes minutes. A directory on its path does as well.
rm -rf "$site/manyhands"
cp -r python/manyhands "$site/"
rm -f "$site"/manyhands/_core.*.so  # what the working tree was built with comes before the one below
cp "$target/$triple/debug/lib_core.so" "$site/manyhands/_core.so"
if [[ ! -d $site/pytest ]]; then
    # Pure Python, so any pip may fetch it; the last Hypothesis that is, see pyproject.toml.
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-compile --target "$site" \
        --only-binary :all: --python-version 3.13 --implementation py --abi none --platform any \
        pytest pytest-run-parallel 'hypothesis<6.156'
fi

tests=("$@")
((${#tests[@]})) || tests=(-m "race and not stress" --deselect tests/test_fork.py)

say "running; ten times slower than usual"
rm -f "$reports"/report.*
status=0
# The tests' exit status, not the sanitizer's: exitcode=0. The time limits of waits are for machines, not for this:
# MANYHANDS_TEST_PATIENCE stretches them (tests/support.py).
env PYTHONPATH="$site" PYTHONDONTWRITEBYTECODE=1 MANYHANDS_TEST_PATIENCE=10 \
    TSAN_OPTIONS="$options:exitcode=0:log_path=$reports/report:history_size=4" \
    setarch -R "$python" -X gil=0 -m pytest -q -o faulthandler_timeout=600 "${tests[@]}" || status=$?

# A report is ours if one of its two accesses is made by our code: the innermost frame that is neither std's, nor a
# dependency's, nor an interceptor of the sanitizer (<null>) is a file of crates/. CPython's own accesses are all below
# some join() of ours, and are not.
summary=$({ cat "$reports"/report.* 2>/dev/null || true; } | awk '
    /^WARNING: ThreadSanitizer/ { total++; mine = 0; stacks = 0 }
    /^  (As if |Previous |Write|Read|Atomic)/ { stacks++; looking = (stacks <= 2) }
    /^$/ { looking = 0 }
    looking && /^ +#[0-9]+ / && !/<null>|\/rustc\/|\/registry\/src\// {
        looking = 0
        if (/\/crates\/(core|py)\/src\// && !mine) { mine = 1; ours++ }
    }
    END { printf "%d %d", total, ours }')
read -r total ours <<<"$summary"
say "$ours report(s) with a frame of ours, $total in all (in $reports)"
if ((ours)); then
    grep -h "^SUMMARY: " "$reports"/report.* | sort | uniq -c | sort -rn | head -20 >&2
    exit 1
fi
exit "$status"
