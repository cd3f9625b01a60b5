#!/bin/bash
# boot.sh ROOT NAME SHARE NETWORK: boots Debian's systemd on a folder with a root file system, in a container, and stays
# in the foreground. NETWORK is a process whose network it gets; SHARE appears as /mnt/host.
#
# The cgroup hierarchy is mounted anew for the container alone, as version 2, and CAP_BPF is granted: without them
# DeviceAllow= would be accepted there and enforce nothing.
set -eu
export ROOT=$1 NAME=$2 SHARE=$3 NETWORK=$4
exec unshare --mount --propagation private bash -eu -c '
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p "/sys/fs/cgroup/$NAME"
    echo $$ >"/sys/fs/cgroup/$NAME/cgroup.procs"
    exec systemd-nspawn --quiet --directory="$ROOT" --machine="$NAME" --boot --register=no --keep-unit \
        --network-namespace-path="/proc/$NETWORK/ns/net" --bind="$SHARE:/mnt/host" --tmpfs=/tmp --tmpfs=/var/tmp \
        --capability=CAP_BPF --system-call-filter=bpf --console=pipe systemd.unit=multi-user.target
'
