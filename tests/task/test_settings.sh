#!/bin/bash
# Settings that have no effect and settings that cannot work are refused before any work, with the key's full name; the
# dry run says the same as the run.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
task=$folder/task
mkdir "$task"
"$FEDSTILL_HELPER" data "$folder/data" 60 30 || exit 1
cat >"$task/task.yaml" <<END
name: settings
seed: 3
data: {source: idx, path: $folder/data}
clients: {count: 3}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 16}
  cloud_kd:        {temperature: 4.0}
  edge_kd:         {model: logistic_regression, epochs: 1, batch_size: 16}
  federated_train: {rounds: 1, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05}}
END

# refused KEY TEXT SETTING...: neither a dry run nor a run begins, and both name the key and what it needs
refused() {
    local key=$1 text=$2 mode sets=()
    shift 2
    for setting; do sets+=(--set "$setting"); done
    for mode in --dry-run --quiet; do
        rm -rf "$task/output"
        expect 2 run "$task" $mode "${sets[@]}"
        said err "$key"
        said err "$text"
        same "$last: artifacts" "$(find "$task/output" -name '*.safetensors' -o -name stage.json 2>/dev/null)" ""
    done
}
accepted() { # SETTING...
    local sets=()
    for setting; do sets+=(--set "$setting"); done
    expect 0 run "$task" --dry-run "${sets[@]}"
}

# ---- no effect
refused clients.alpha "only with partition dirichlet or quantity" clients.alpha=0.05
accepted clients.alpha=0.05 clients.partition=dirichlet
refused clients.classes_per_client "only with partition shards" clients.classes_per_client=1
refused clients "has no effect with topology" topology.edges=2 data.validation=0.2
refused clients "has no effect without stages.federated_train" stages.federated_train=null
f=stages.federated_train
refused $f.prox_mu "only with strategy fedprox" $f.prox_mu=10
accepted $f.prox_mu=10 $f.strategy=fedprox
accepted $f.prox_mu=0
refused $f.server "has no effect with strategy fedavg" $f.server.learning_rate=0.01
refused $f.server.momentum "only with strategy fedavgm" $f.server.momentum=0.5 $f.strategy=fedadam
refused $f.server.beta1 "only with strategy fedadam or fedyogi" $f.server.beta1=0.5 $f.strategy=fedadagrad
refused $f.server.beta2 "only with strategy fedadam or fedyogi" $f.server.beta2=0.5 $f.strategy=fedavgm
refused $f.server.tau "only with strategy fedadagrad, fedadam or fedyogi" $f.server.tau=0.5 $f.strategy=fedavgm
accepted $f.server.tau=0.5 $f.server.beta1=0.5 $f.strategy=fedyogi
refused $f.fraction "has no effect with clients_per_round" $f.fraction=0.5 $f.clients_per_round=2
refused $f.optimizer.nesterov "has no effect without momentum" $f.optimizer.nesterov=true
accepted $f.optimizer.nesterov=true $f.optimizer.momentum=0.9
p=stages.cloud_pretrain
refused $p.optimizer.momentum "only with name sgd" $p.optimizer.momentum=0.9
refused $p.optimizer.beta1 "only with name adam or adamw" $p.optimizer.beta1=0.8 $p.optimizer.name=sgd
refused $p.schedule.eta_min "only with name cosine or warmup_cosine" $p.schedule.eta_min=0.001
refused $p.schedule.gamma "only with name multistep or step" $p.schedule.gamma=0.5 $p.schedule.name=cosine
refused $p.schedule.warmup "only with name warmup_cosine" $p.schedule.warmup=2 $p.schedule.name=cosine
refused $p.schedule.step_size "only with name step" $p.schedule.step_size=2 $p.schedule.name=multistep $p.schedule.milestones=3
refused $p.schedule.milestones "only with name multistep" $p.schedule.milestones=3
refused $p.schedule.name "needs milestones" $p.schedule=multistep
refused stages.cloud_kd.top_k "only with encoding top_k" stages.cloud_kd.top_k=3
refused stages.edge_kd.dkd "only with kd_loss dkd" stages.edge_kd.dkd.beta=2
refused stages.edge_kd.temperature "only with kd_loss" stages.edge_kd.temperature=4 stages.edge_kd.kd_loss=mse_logits
refused stages.edge_kd.kd_loss "has no effect without kd_weight" stages.edge_kd.kd_loss=kl stages.edge_kd.kd_weight=0
refused data.x "only with source auto or array" data.x=samples
refused data.window "only with source auto or sigmf" data.window=128
refused data.channels "only with source auto or folder" data.channels=1
refused data.height "only with source auto or folder" data.height=28
refused data.synth "only with source synth" data.synth.windows=100

# what the program writes has none of them, and is read again
expect 0 run "$task" --set clients.alpha=null
checks=$((checks + 1))
grep -q alpha "$task/output/task.yaml" && fail "task.yaml of a run with iid names alpha"
cp "$task/output/task.yaml" "$folder/kept.yaml"
expect 0 run "$folder/kept.yaml" --dry-run --set data.path="$folder/data"
# one of an earlier version, with every key, still makes a report
sed -i 's/^clients:/clients:\n  alpha: 0.5/' "$task/output/task.yaml"
expect 0 report "$task"
true_that "the report lacks the settings of the run" grep -q "As the last run" "$task/output/report.html"

finish
