# shellcheck shell=bash
# What free_threaded.sh and tsan_interpreter.sh share: where builds are kept, how the
# packages to compile with are installed, how CPython's source is had, how it is built.
# Sourced, never run; it prints to stderr only and defines functions and `cache`.
#
# The source comes from Debian, not from python.org: a Debian mirror is often the one
# thing a fenced-in machine can reach, and apt checks it from the archive's signature
# down to the tarball's sha256. Which mirror is the machine's own affair: apt is asked,
# none is named here. Only the untouched upstream tarball is used; Debian's patches move
# site-packages about and are of no use to an interpreter that is not Debian's.

# Our Makefile's options are not for CPython's: without make's built-in suffixes most of it is not compiled.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL

# Outside the checkout, so that `git clean` and a second checkout do not cost a rebuild.
cache=${MANYHANDS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/manyhands}

# Tried in this order, "source package:suite". 3.14 is a third faster on one thread, but
# lives in suites that move, and mirrors drop their files early; 3.13 of trixie stays.
# Nothing newer: PyO3 0.28.3, the last that knows 3.13t, knows CPython up to 3.14.
source_candidates=(python3.14:forky python3.14:sid python3.13:trixie python3.13:forky)

# shellcheck disable=SC2034  # used by the scripts that source this
build_packages=(build-essential pkg-config xz-utils zlib1g-dev libssl-dev libffi-dev
    libbz2-dev liblzma-dev libsqlite3-dev libreadline-dev uuid-dev)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# The directory that every temporary file of this run goes to; removed at exit.
scratch=
make_scratch() {
    mkdir -p "$cache" || die "cannot create $cache; set MANYHANDS_CACHE to a directory you may write to."
    # Relative paths would end up in the interpreter's prefix.
    cache=$(cd "$cache" && pwd -P)
    # What a killed run left behind half a gigabyte of; no build takes a day.
    find "$cache" -maxdepth 1 -name 'scratch.*' -mmin +1440 -exec rm -rf {} +
    scratch=$(mktemp -d "$cache/scratch.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
}

# take_lock NAME: wait until no other run holds it; kept until this process ends, or until
# the descriptor that it leaves in lock_fd is closed.
take_lock() {
    exec {lock_fd}>"$cache/$1.lock"
    flock --nonblock "$lock_fd" && return
    say "another run is at work on '$1'; waiting for it."
    flock "$lock_fd"
}

missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

# need_packages PACKAGE...: install what is missing, or say what to install.
need_packages() {
    local missing
    { command -v apt-get && command -v dpkg-query; } >/dev/null ||
        die "this machine has no apt; install a free-threaded CPython 3.13 or 3.14 by other means and name it in MANYHANDS_FT_PYTHON."
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "packages are missing; run as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    # Somebody else may be installing: wait for dpkg's lock instead of failing on it.
    local install=(apt-get -qq -o DPkg::Lock::Timeout=600 install --no-install-recommends -y "${missing[@]}")
    # The lists may be missing or stale (a fresh container has none): refresh, try again.
    DEBIAN_FRONTEND=noninteractive "${install[@]}" >"$scratch/apt.log" 2>&1 || {
        apt-get -qq -o DPkg::Lock::Timeout=600 update || true
        DEBIAN_FRONTEND=noninteractive "${install[@]}" >"$scratch/apt.log" 2>&1
    } || {
        tail -n 5 "$scratch/apt.log" >&2
        die "apt-get could not install ${missing[*]}; install them by hand and run this again."
    }
}

# The base address of every archive that the machine's apt uses. Asking apt, rather than
# reading its files, covers both formats, every directory and every option of theirs.
archive_mirrors() {
    apt-get update --print-uris 2>/dev/null |
        sed -n "s|^'\(.*\)/dists/[^/]*/InRelease' .*|\1|p" | awk '!seen[$0]++'
}

# download_source PACKAGE SUITE MIRROR: leave PACKAGE's upstream tarball in $scratch/source.
# Everything apt writes goes to $scratch: the machine's own apt does not notice.
download_source() {
    local package=$1 suite=$2 mirror=$3 apt=$scratch/apt
    rm -rf "$apt" "$scratch/source"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/none" "$scratch/source"
    printf 'deb-src [signed-by=%s] %s %s main\n' "$debian_keyring" "$mirror" "$suite" >"$apt/sources.list"
    # Read after the machine's configuration, whose proxies and credentials stay in force.
    # Its hooks do not: they tidy /var/cache, which this run has no business with.
    cat >"$apt/apt.conf" <<END
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Update::Error-Mode "any";
APT::Sandbox::User "root";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/none";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
END
    apt-get -qq -c "$apt/apt.conf" update &&
        (cd "$scratch/source" &&
            apt-get -qq -c "$apt/apt.conf" source --download-only --tar-only --only-source "$package")
}

# Set `tarball` and `version`, downloading CPython's source unless an earlier run has.
get_cpython_source() {
    local candidate mirror mirrors
    mkdir -p "$cache/cpython-source"
    take_lock cpython-source
    tarball=$(newest "$cache"/cpython-source/python3.*.orig.tar.xz)
    if [[ -z $tarball ]]; then
        debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
        [[ -r $debian_keyring ]] || need_packages debian-archive-keyring
        mapfile -t mirrors < <(archive_mirrors)
        for candidate in "${source_candidates[@]}"; do
            say "looking for the source of ${candidate/:/ in }"
            for mirror in "${mirrors[@]}"; do
                download_source "${candidate%:*}" "${candidate#*:}" "$mirror" >"$scratch/apt.log" 2>&1 || continue
                # A rename, so that a tarball with this name is always a whole one.
                mv "$scratch"/source/python3.*.orig.tar.xz "$cache/cpython-source/"
                break 2
            done
        done
        tarball=$(newest "$cache"/cpython-source/python3.*.orig.tar.xz)
    fi
    # The other script's build need not wait for this one's.
    exec {lock_fd}>&-
    [[ -n $tarball ]] || {
        [[ ! -s $scratch/apt.log ]] || tail -n 3 "$scratch/apt.log" >&2
        die "no Debian mirror of this machine serves CPython's source; put python3.13_3.13.5.orig.tar.xz into $cache/cpython-source, or name a free-threaded interpreter in MANYHANDS_FT_PYTHON."
    }
    version=${tarball##*_}
    version=${version%.orig.tar.xz}
    say "using the source of CPython $version"
}

# newest PATH...: the existing one with the highest version in its name; nothing if none.
newest() {
    local path
    for path in "$@"; do
        [[ ! -e $path ]] || printf '%s\n' "$path"
    done | sort -V | tail -n 1
}

# step WHAT COMMAND...: run it in the build directory with its output in $build_log.
step() {
    local what=$1
    shift
    say "$what"
    # nice: other people compile and measure on the same machine.
    (cd "$scratch/build" && nice "$@") >>"$build_log" 2>&1 || {
        tail -n 20 "$build_log" >&2
        die "'$what' failed; read $build_log, mend the cause and run this again."
    }
}

# build_cpython PREFIX CONFIGURE_OPTION...: build `tarball` and install it under PREFIX.
# PREFIX is compiled in, so the files cannot be built elsewhere and moved there. What makes
# it atomic is finish_build: a prefix without its stamp is rubbish to every reader.
build_cpython() {
    local prefix=$1
    shift
    build_log=$prefix.log
    rm -rf "$prefix" "$build_log"
    mkdir "$scratch/build"
    tar -C "$scratch/build" --strip-components=1 -xf "$tarball"
    # No PGO: it triples the time, and nothing is measured on this interpreter in earnest.
    # No test modules: compiling CPython's own tests to bytecode takes as long as the core.
    step "configuring (log: $build_log)" "${launcher[@]}" ./configure --disable-gil --prefix="$prefix" \
        --with-ensurepip=install --disable-test-modules "$@"
    step "compiling; this takes minutes" "${launcher[@]}" make -j"$(nproc)"
    step "installing to $prefix" "${launcher[@]}" make altinstall
}

# What a command of the build runs under; tsan_interpreter.sh needs setarch.
launcher=(env)

finish_build() { # PREFIX INTERPRETER
    printf '%s\n' "$2" >"$1/.complete.new"
    mv "$1/.complete.new" "$1/.complete"
}

# finished_build PREFIX...: the interpreter of the newest prefix that was finished.
finished_build() {
    local stamp
    stamp=$(newest "${@/%//.complete}")
    [[ -z $stamp ]] || cat "$stamp"
}

# is_free_threaded PYTHON [LAUNCHER...]: does it run without the GIL, with all we need?
is_free_threaded() {
    local python=$1
    shift
    "$@" "$python" -c '
import sys
import ctypes, ensurepip, sqlite3, ssl, venv, zlib, _socket, bz2, lzma
sys.exit(sys._is_gil_enabled() or not (3, 13) <= sys.version_info < (3, 15))
'
}
