#!/bin/sh
# Brings the amalgamation of one SQLite version to build/sqlite/<version>, for
# the tests that run on SQLite's own sources with its asserts. The sources come
# inside npm packages; both the package and sqlite3.c are checked.
set -eu

version=${1:?usage: fetch_sqlite.sh VERSION}
case $version in
3.40.1)
    package=better-sqlite3@8.1.0
    package_sum=9006504eac0c86e8d5f42d6b7a8282866bf041bc856ff4438fec83cb98e4c05f
    source_sum=de365966681a951cd2fd7b76796a683f0ec6458dfa8fc54cf16029d6833ef1d1
    ;;
3.54.1)
    package=better-sqlite3@13.2.0
    package_sum=40487589df3496f2ee0079d22b73c63fccebe7db0e8ee9a2c42421861e321e0b
    source_sum=75a4760a7b9727a4c4c877aec92eacf39e52a8f2921ce00bd33be6d3a8e8e254
    ;;
*)
    echo "fetch_sqlite.sh: no pinned source for SQLite $version: add it here" >&2
    exit 1
    ;;
esac

top=$(cd "$(dirname "$0")/../.." && pwd)
target=$top/build/sqlite/$version

check() {
    if ! echo "$1  $2" | sha256sum -c --status; then
        echo "fetch_sqlite.sh: $2 is not the pinned file (SHA-256 $1): delete it and try again" >&2
        exit 1
    fi
}

if [ -f "$target/sqlite3.c" ]; then
    check "$source_sum" "$target/sqlite3.c"
    exit 0
fi
if ! command -v npm >/dev/null; then
    echo "fetch_sqlite.sh: npm is missing, the tests on SQLite $version cannot be built: apt-get install npm" >&2
    exit 1
fi
mkdir -p "$target"
work=$(mktemp -d "$target/fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
if ! (cd "$work" && npm pack --silent "$package" >/dev/null); then
    echo "fetch_sqlite.sh: npm pack $package failed, the tests on SQLite $version cannot be built: is there a network?" >&2
    exit 1
fi
file=$(ls "$work"/*.tgz)
check "$package_sum" "$file"
tar -xzf "$file" -C "$work"
check "$source_sum" "$work/package/deps/sqlite3/sqlite3.c"
mv "$work/package/deps/sqlite3/sqlite3.h" "$work/package/deps/sqlite3/sqlite3ext.h" "$target/"
mv "$work/package/deps/sqlite3/sqlite3.c" "$target/sqlite3.c"
