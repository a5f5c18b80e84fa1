#!/usr/bin/env bash
# Train on a real SLURM: a controller and two nodes on this machine, in namespaces that end with the script.
#
# A run of two nodes that is preempted, loses a node and runs out of time has to end with the same network as a run that
# is never interrupted. Takes some minutes, as root; needs slurm-wlm and munge:
#
#     apt-get install slurm-wlm munge
#     tests/slurm/run.sh
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ -z "${IN_NAMESPACES:-}" ]; then
    export IN_NAMESPACES=1
    exec unshare --mount --net --pid --uts --fork --mount-proc --kill-child "$0"
fi

# ----------------------------------------------------------------------------------------------------------------------
# The cluster. All names mean loopback, whose second address makes getaddrinfo use it.

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
hostname controller
ip link set lo up
ip address add 127.0.0.2/8 dev lo
echo "127.0.0.1 localhost controller node1 node2" > "$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
head -c 128 /dev/urandom > "$folder/key"
chmod 400 "$folder/key"
chmod 755 "$folder"
munged --force --key-file="$folder/key" --socket="$folder/munge" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/seed"
export SLURM_CONF=$folder/slurm.conf
cat > "$SLURM_CONF" <<END
ClusterName=trial
SlurmctldHost=controller
SlurmUser=root
AuthInfo=socket=$folder/munge,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
NodeName=node[1-2] NodeHostname=controller NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=1
PartitionName=all Nodes=ALL Default=YES
END
mkdir "$folder/state"
slurmctld
slurmd -N node1
slurmd -N node2

# ----------------------------------------------------------------------------------------------------------------------
# The runs.

fail() {
    echo "error: $1" >&2
    scontrol show job >&2 || true
    tail -n 30 "$folder"/*.log results/*/log.txt results/*/jobs/* >&2 || true
    exit 1
}

wait_for() { # WHAT COMMAND...
    local what=$1 end=$((SECONDS + 1200))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "$what: not within 20 minutes"
        sleep 1
    done
    echo "$SECONDS s: $what"
}

train() { # Submit a run; prints the number of the job.
    local said
    said=$("$python" "$root/config.py" train --submit slurm --nodes 2 --train-tfrecords train.tfrecords \
        --validation-dir images --iterations 600 --eval-interval 40 --crop-size 32 --minibatch-size 2 \
        --precision float32 --seed 1)
    echo "$said" >&2
    sed -n 's/.*Submitted job \([0-9]*\) .*/\1/p' <<< "$said"
}

finished() { [ -e "$1/_finished.txt" ]; }
checkpointed() { compgen -G "$1/checkpoints/step-*.json" > /dev/null; }
resumed() { [ "$(grep -c "Resumed after" "$2/log.txt")" -ge "$1" ]; }
restarted() { scontrol show job "$job" | grep -q "Restarts=$1 "; }

cd "$folder"
python=$root/.venv/bin/python
mkdir images
"$python" -c "from PIL import Image; Image.radial_gradient('L').resize((32, 32)).convert('RGB').save('images/a.png')"
"$python" "$root/dataset_tool_tf.py" --dead-leaves 4 --out train.tfrecords

a=results/00000-autoencoder-1gpu-S-n2n b=results/00001-autoencoder-1gpu-S-n2n
job=$(train)
wait_for "the first run is finished" finished $a
restarted 0 || fail "the first run was interrupted"

job=$(train)
wait_for "the second run has a checkpoint" checkpointed $b
scancel --signal=USR2 "$job" # What preemption sends.
wait_for "preempted, queued again" restarted 1
wait_for "resumed" resumed 1 $b
scontrol update NodeName=node2 State=DOWN Reason=trial
wait_for "node lost, queued again" restarted 2
scontrol update NodeName=node2 State=RESUME
wait_for "resumed" resumed 2 $b
scontrol update JobId="$job" TimeLimit=2 # SLURM gives notice 90 seconds ahead, or up to 30 seconds earlier.
wait_for "out of time, queued again" restarted 3
scontrol update JobId="$job" TimeLimit=60
wait_for "the second run is finished" finished $b

cmp $a/network_final.pickle $b/network_final.pickle || fail "the networks differ"
echo "The networks are equal."
