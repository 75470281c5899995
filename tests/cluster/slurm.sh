#!/bin/bash
# A Slurm cluster of this machine alone, from Debian's packages, for the tests: no systemd, no cgroups, no accounts.
#
#   tests/cluster/slurm.sh start [DIR]    install what is missing, start munged, slurmctld and slurmd; again: no harm
#   tests/cluster/slurm.sh stop [DIR]     stop what `start` started
#
# Everything lies in DIR (/tmp/bench-slurm); a Slurm that is there already is left alone. Afterwards:
#   export SLURM_CONF=DIR/slurm.conf
# Exit status 3: it cannot be installed here; the last line says why.
set -euo pipefail

action=${1:-}
dir=${2:-/tmp/bench-slurm}
export SLURM_CONF=$dir/slurm.conf

cannot() {
    echo "no Slurm here: $1" >&2
    exit 3
}

running() { # NAME: whether the daemon that `start` started still runs
    [ -f "$dir/$1.pid" ] && kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null
}

install() {
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && return
    command -v apt-get >/dev/null || cannot "apt-get is missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends slurm-wlm munge >"$dir/apt.log" 2>&1 ||
        { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; } >"$dir/apt.log" 2>&1 ||
        cannot "apt-get could not install slurm-wlm and munge: $(tail -1 "$dir/apt.log")"
}

configure() {
    local host
    host=$(hostname -s)
    mkdir -p "$dir/state" "$dir/spool"
    if [ ! -f "$dir/munge.key" ]; then
        (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
    fi
    cat >"$SLURM_CONF" <<EOF
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=10
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
}

start() {
    [ "$(id -u)" = 0 ] || cannot "only root can start its daemons"
    mkdir -p "$dir"
    chmod 755 "$dir"
    install
    configure
    running munged || munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
        --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    running slurmctld || slurmctld
    running slurmd || slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2>/dev/null | grep -qE '^(idle|mix|alloc)'; then
            echo "Slurm runs; export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 1
    done
    echo "Slurm did not start within a minute; see $dir/*.log" >&2
    exit 1
}

stop() {
    local name pid
    # Jobs end before the daemons that they report to: else their srun waits for them.
    if running slurmctld; then
        scancel --quiet --user="$(id -un)"
        for _ in $(seq 60); do
            [ -n "$(squeue --noheader)" ] || break
            sleep 0.5
        done
    fi
    for name in slurmd slurmctld munged; do
        running "$name" || continue
        pid=$(cat "$dir/$name.pid")
        kill "$pid"
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    done
}

case $action in
    start | stop) "$action" ;;
    *)
        echo "usage: $0 start|stop [DIR]" >&2
        exit 2
        ;;
esac
