#!/usr/bin/env bash
# Trains a few steps on two "nodes" of one machine: two network namespaces joined by a virtual cable, one torchrun each.
# They share nothing but files, as the nodes of a cluster do. Needs Linux, root and iproute2.
#
#   sudo benchmarks/two_nodes.sh [PYTHON] [key=value ...]      ranks a node: RANKS (1); output: work_dirs/two_nodes
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
[ $# -gt 0 ] && shift
ranks=${RANKS:-1}
nodes=("mf-node-$$-0" "mf-node-$$-1")
output=${OUTPUT:-work_dirs/two_nodes}
log=$(mktemp -d)

cleanup() {
    kill $(jobs -p) 2>/dev/null || true
    for node in "${nodes[@]}"; do ip netns del "$node" 2>/dev/null || true; done
    rm -rf "$log"
}
trap cleanup EXIT

for node in "${nodes[@]}"; do
    ip netns add "$node"
    ip -n "$node" link set lo up
done
# Created inside the namespaces, so that no name of this machine's own network is touched.
ip -n "${nodes[0]}" link add cable type veth peer name cable netns "${nodes[1]}"
for i in 0 1; do
    ip -n "${nodes[$i]}" address add "10.77.0.$((i + 1))/24" dev cable
    ip -n "${nodes[$i]}" link set cable up
done

start() { # node index: what a cluster's launcher would run on it
    # A cluster's nodes have names that resolve to their addresses. These two share one name, so each is told its own
    # address (--local_addr) and which of them holds the meeting point (is_host).
    ip netns exec "${nodes[$1]}" env GLOO_SOCKET_IFNAME=cable OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= \
        "$python" -m torch.distributed.run --nnodes=2 --nproc_per_node="$ranks" \
        --rdzv_backend=c10d --rdzv_endpoint=10.77.0.1:29400 --rdzv_id=two-nodes --local_addr="10.77.0.$(($1 + 1))" \
        --rdzv_conf=is_host=$((1 - $1)) \
        train.py configs/base rec=synthetic:1000:2560 network=tiny embedding_size=128 head=cosface batch_size=64 \
        num_epoch=1 num_workers=0 frequent=5 output="$output" threads=1 "${@:2}" >"$log/node$1" 2>&1
}

rm -rf "$output"
start 0 "$@" & first=$!
start 1 "$@" & second=$!
status=0
wait $first || status=$?
wait $second || status=$?
for i in 0 1; do
    sed "s/^/node $i: /" "$log/node$i"
    bytes=$(ip netns exec "${nodes[$i]}" cat /sys/class/net/cable/statistics/tx_bytes 2>/dev/null || echo unknown)
    echo "node $i sent $bytes bytes"
done
exit $status
