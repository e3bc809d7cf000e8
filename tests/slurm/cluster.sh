#!/usr/bin/env bash
# A real Slurm on this machine for the tests: two emulated nodes on loopback, with fake GPUs.
#
#   cluster.sh start FOLDER   install Slurm where it is missing, write /etc/slurm, start the daemons
#   cluster.sh stop FOLDER    stop them by pid, take away what start has written and installed
#
# FOLDER holds logs, pid files, spools and the fake device nodes. Needs root on Debian or a relative;
# a machine that has a slurm.conf of its own is left alone. Exit status 3: cannot run here, and the
# last line of the output says why.
set -euo pipefail
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # daemons; not on every user's PATH

PACKAGES=(slurmctld slurmd slurm-client munge)
MARK="# Emulated by dbksvd's tests/slurm/cluster.sh in"
CONF=/etc/slurm/slurm.conf
NODES=(n1 n2)

refuse() {
  echo "$1"
  exit 3
}

install_packages() {
  local list="$folder/packages-before"
  if command -v slurmctld slurmd sinfo munged > /dev/null; then
    return
  fi
  dpkg-query --show --showformat '${binary:Package}\n' | sort > "$list"
  export DEBIAN_FRONTEND=noninteractive
  {
    apt-get update && apt-get install --yes --no-install-recommends "${PACKAGES[@]}"
  } > "$folder/apt.log" 2>&1 || refuse "apt-get cannot install ${PACKAGES[*]}: $(tail -n 1 "$folder/apt.log")"
  dpkg-query --show --showformat '${binary:Package}\n' | sort | comm -13 "$list" - > "$folder/packages"
}

remove_packages() {
  if [[ -s "$folder/packages" ]]; then
    DEBIAN_FRONTEND=noninteractive xargs --arg-file "$folder/packages" \
      apt-get purge --yes >> "$folder/apt.log" 2>&1
  fi
}

# CR_LLN puts each job on the least loaded node, so that a small run uses both.
# CPUs, memory and GPUs are said, not looked for: what is at hand may be less.
# Memory is what a job is given and no more: OverMemoryKill ends a job that takes more.
write_conf() {
  local host
  host=$(hostname -s)
  mkdir -p /etc/slurm
  cat > "$CONF" << END
$MARK $folder
ClusterName=emulated
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/completed.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory,CR_LLN
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
MinJobAge=3600
ReturnToService=2
GresTypes=gpu
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=4 RealMemory=24000 Gres=gpu:4
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
END
  echo "Name=gpu File=$folder/gpu[0-3]" > /etc/slurm/gres.conf
}

start_munge() {
  if munge --no-input > /dev/null 2>&1; then
    return # one that is not ours
  fi
  install --directory --owner=munge --group=munge --mode=755 /run/munge
  setpriv --reuid=munge --regid=munge --init-groups /usr/sbin/munged
  cp /run/munge/munged.pid "$folder/munged.pid"
}

start() {
  [[ $EUID == 0 ]] || refuse "not root"
  [[ -e /etc/debian_version ]] && command -v apt-get > /dev/null || refuse "not Debian"
  if [[ -e "$CONF" ]]; then
    local left
    left=$(sed -n "1s|^$MARK ||p" "$CONF")
    [[ -n "$left" ]] || refuse "$CONF exists: this machine has a Slurm of its own"
    pid_of slurmctld "$left" > /dev/null && refuse "another test is using the emulated cluster"
    (folder=$left && stop) # what a killed test has left behind
  fi
  mkdir -p "$folder/state" "$folder/spool-n1" "$folder/spool-n2"
  for i in 0 1 2 3; do
    [[ -e "$folder/gpu$i" ]] || mknod "$folder/gpu$i" c 1 3 || refuse "mknod is not allowed"
  done
  install_packages
  write_conf
  start_munge
  slurmctld
  for node in "${NODES[@]}"; do
    slurmd -N "$node"
  done
  local deadline=$((SECONDS + 30))
  while ((SECONDS < deadline)); do
    sleep 0.2
    if ! pid_of slurmctld > /dev/null; then # sinfo would wait for it for ten seconds
      ((SECONDS < deadline - 25)) && continue || break
    fi
    if [[ "$(sinfo --noheader --format '%T %D')" == "idle 2" ]]; then
      return
    fi
  done
  local reason
  reason=$(grep --no-filename -E 'fatal|error' "$folder/slurmctld.log" | tail -n 1) || true
  stop
  refuse "the nodes did not come up: $reason"
}

# The pid of a daemon of ours that still runs; a zombie is gone.
pid_of() {
  local pid
  pid=$(cat "${2:-$folder}/$1.pid" 2> /dev/null) || return 1
  grep --quiet "^Name:[[:space:]]*${1%%-*}$" "/proc/$pid/status" 2> /dev/null || return 1
  ! grep --quiet '^State:[[:space:]]*Z' "/proc/$pid/status" || return 1
  echo "$pid"
}

stop_daemon() {
  local pid
  pid=$(pid_of "$1") || return 0
  kill "$pid"
  for _ in $(seq 100); do
    pid_of "$1" > /dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid"
}

stop() {
  if pid_of slurmctld > /dev/null; then
    scancel --user=root 2> /dev/null || true
  fi
  for node in "${NODES[@]}"; do
    stop_daemon "slurmd-$node"
  done
  stop_daemon slurmctld
  stop_daemon munged
  if grep --quiet "^$MARK $folder\$" "$CONF" 2> /dev/null; then
    rm -f "$CONF" /etc/slurm/gres.conf
  fi
  rm -f "$folder"/gpu[0-3]
  remove_packages
}

folder=${2:?usage: cluster.sh start|stop FOLDER}
mkdir -p "$folder"
folder=$(realpath "$folder")
case $1 in
  start) start ;;
  stop) stop ;;
  *) refuse "usage: cluster.sh start|stop FOLDER" ;;
esac
