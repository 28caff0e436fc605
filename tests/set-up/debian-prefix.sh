#!/bin/bash
# debian-prefix.sh SUITE PREFIX PACKAGE...
#
# Unpacks packages of a Debian suite, with all they depend on down to libc, into PREFIX and makes the programs run from there,
# on an older or newer Debian than the suite. The system's own packages are not touched, and root is not needed.
# The archive's signatures are verified. PREFIX is written into the programs: it cannot be moved afterwards.
# Needs: apt with fresh lists, patchelf, debian-archive-keyring.
set -euo pipefail
suite=$1
prefix=$(realpath -m "$2")
shift 2
apt=$prefix/.apt
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# Programs of packages that servers only want at installation time: not needed, and perl alone is 50 MB.
unwanted='^(perl.*|libperl.*|lib.*-perl|dpkg|tar|[gm]awk|procps|psmisc|passwd|adduser|debconf|lsof|rsync|socat|iproute2|galera-4|init-system-helpers|debianutils|coreutils|base-.*|libc-gconv-modules-extra)$'

# The mirror that this machine already uses; none is written down here.
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Label: $1" | sort -u | head -n 1; }

private_apt() {
    local main security
    main=$(mirror Debian)
    security=$(mirror Debian-Security)
    [ -n "$main" ] || {
        echo "apt knows no Debian mirror here: run apt-get update, or install the servers yourself and set HOLDFAST_*_DIR"
        exit 1
    }
    rm -rf "$prefix"
    mkdir -p "$apt"/{etc/apt.conf.d,etc/preferences.d,state/lists/partial,cache/archives/partial,log}
    : >"$apt/state/status" # nothing counts as installed, so everything needed is fetched
    echo "deb [signed-by=$keyring] $main $suite main" >"$apt/etc/sources.list"
    # sid has no security updates of its own
    [ -z "$security" ] || [ "$suite" = sid ] || echo "deb [signed-by=$keyring] $security $suite-security main" >>"$apt/etc/sources.list"
    # Valid-Until is not checked: mirrors lag, and an old but signed index is good enough for a server to test against.
    cat >"$apt/apt.conf" <<END
Dir "$apt";
Dir::Etc "$apt/etc";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::parts "$apt/etc/apt.conf.d";
Dir::Etc::preferencesparts "$apt/etc/preferences.d";
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Dir::Log "$apt/log";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
Debug::NoLocking "true";
END
}

unpack() {
    local deb name
    for deb in "$apt"/cache/archives/*.deb; do
        name=$(basename "$deb")
        [[ ${name%%_*} =~ $unwanted ]] && continue
        dpkg-deb -x "$deb" "$prefix"
        dpkg-deb -W --showformat '${Package} ${Version}\n' "$deb" >>"$prefix/.packages"
    done
    # Suites before trixie also have /lib and /lib64: one place for all, so that one search path serves.
    local dir
    for dir in bin sbin lib lib64; do
        if [ -d "$prefix/$dir" ] && [ ! -L "$prefix/$dir" ]; then
            mkdir -p "$prefix/usr/$dir"
            cp -a "$prefix/$dir/." "$prefix/usr/$dir/"
            rm -rf "${prefix:?}/$dir"
        fi
        ln -sfn "usr/$dir" "$prefix/$dir"
    done
}

# Programs get the prefix's own loader and libraries; libraries that carry a search path get it moved into the prefix.
adopt() {
    local libraries file old
    libraries=$(dirname "$(echo "$prefix"/usr/lib/*/libc.so.6)")
    for file in "$prefix"/usr/bin/* "$prefix"/usr/sbin/*; do
        [ -f "$file" ] && [ ! -L "$file" ] || continue
        old=$(patchelf --print-interpreter "$file" 2>/dev/null) || continue
        # Not $prefix$old: there may be a link to the system's own loader, which does not fit the prefix's libc.
        patchelf --set-interpreter "$libraries/$(basename "$old")" --force-rpath --set-rpath "$libraries:$libraries/systemd" "$file"
    done
    find "$prefix/usr/lib" -type f -name '*.so*' -print0 | while IFS= read -r -d '' file; do
        old=$(patchelf --print-rpath "$file" 2>/dev/null) || continue
        [[ $old != /* ]] || patchelf --set-rpath "$libraries:$libraries/systemd:$prefix${old//:\//:$prefix/}" "$file"
    done
}

private_apt
APT_CONFIG=$apt/apt.conf apt-get -q update
APT_CONFIG=$apt/apt.conf apt-get -q -y -d install "$@"
unpack
adopt
rm -rf "$apt" "$prefix"/usr/share/{doc,man,locale,lintian,bug} "$prefix"/usr/share/mysql/mysql-test "$prefix"/usr/lib/*/gconv
