#!/bin/bash
# Settings that have no effect and settings that cannot work are refused before any work, with the key's full name; the
# dry run says the same as the run.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
new_task 60 30
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
    local key=$1 text=$2 mode sets
    shift 2
    settings_of "$@"
    for mode in --dry-run --quiet; do
        rm -rf "$task/output"
        expect 2 run "$task" $mode "${sets[@]}"
        said err "$key"
        said err "$text"
        same "$last: artifacts" "$(find "$task/output" -name '*.safetensors' -o -name stage.json 2>/dev/null)" ""
    done
}
accepted() { # SETTING...
    local sets
    settings_of "$@"
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
# a dry run says what the server can learn of the clients, in lines of at most 80 columns
learns() { sed -n '/The server sees/,$p' "$folder/out" | tr -s ' \n' ' '; }
accepted $f.strategy=local
same "of local" "$(learns)" " The server sees no model: only each client's number of samples, its training loss and how long it took. "
accepted $f.strategy=scaffold
same "of scaffold" "$(learns)" " The server sees every client's weights and the change of its control variate, which is a mean of its \
gradients: more than with fedavg. "
same "longer lines" "$(sed -n '/The server sees/,$p' "$folder/out" | awk 'length > 80')" ""
accepted $f.prox_mu=0
refused $f.server "has no effect with strategy fedavg" $f.server.learning_rate=0.01
refused $f.server.momentum "only with strategy fedavgm" $f.server.momentum=0.5 $f.strategy=fedadam
refused $f.server.beta1 "only with strategy fedadam or fedyogi" $f.server.beta1=0.5 $f.strategy=fedadagrad
refused $f.server.beta2 "only with strategy fedadam or fedyogi" $f.server.beta2=0.5 $f.strategy=fedavgm
refused $f.server.tau "only with strategy fedadagrad, fedadam or fedyogi" $f.server.tau=0.5 $f.strategy=fedavgm
accepted $f.server.tau=0.5 $f.server.beta1=0.5 $f.strategy=fedyogi
refused $f "set the clients' optimizer to sgd" $f.strategy=scaffold $f.optimizer.name=adam $f.optimizer.learning_rate=0.01
refused $f "fednova_mu times the clients' learning rate is 2" $f.strategy=fednova $f.fednova_mu=20 $f.optimizer.learning_rate=0.1
refused $f "can make a round" $f.strategy=fedbuff
refused $f "at most 1 of" $f.strategy=fedbuff $f.concurrency=2 $f.clients_per_round=2
accepted $f.strategy=fedbuff $f.clients_per_round=1
refused $f.local_epochs "has no effect with local_steps" $f.local_epochs=2 $f.local_steps=3
accepted $f.local_steps=3
refused $f "generated_weight and generated_kl_weight are 0" $f.strategy=fedgen $f.generated_weight=0 $f.generated_kl_weight=0
refused $f.generated_batch_size "has no effect without generated_weight" $f.strategy=fedgen $f.generated_weight=0 $f.generated_batch_size=8
refused $f "linear layer over features is needed" $f.strategy=fedgen
refused $f.fraction "has no effect with clients_per_round" $f.fraction=0.5 $f.clients_per_round=2
refused $f.optimizer.nesterov "has no effect without momentum" $f.optimizer.nesterov=true
accepted $f.optimizer.nesterov=true $f.optimizer.momentum=0.9
refused $f.optimizer_state "sgd without momentum has no state" $f.optimizer_state=kept
accepted $f.optimizer_state=kept $f.optimizer.momentum=0.9
accepted $f.optimizer_state=kept $f.optimizer.name=adam
refused $f.optimizer_state "with strategy other than fedkd" $f.optimizer_state=kept $f.strategy=fedkd $f.optimizer.name=adam
for strategy in scaffold fednova; do
    refused $f "set optimizer_state to fresh" $f.optimizer_state=kept $f.strategy=$strategy $f.optimizer.momentum=0.9
done
p=stages.cloud_pretrain
refused $p.optimizer.momentum "only with name sgd" $p.optimizer.momentum=0.9
refused $p.optimizer.beta1 "only with name adam or adamw" $p.optimizer.beta1=0.8 $p.optimizer.name=sgd
refused $p.schedule.eta_min "only with name cosine or warmup_cosine" $p.schedule.eta_min=0.001
refused $p.schedule.gamma "only with name multistep or step" $p.schedule.gamma=0.5 $p.schedule.name=cosine
refused $p.schedule.warmup "only with name warmup_cosine" $p.schedule.warmup=2 $p.schedule.name=cosine
refused $p.schedule.step_size "only with name step" $p.schedule.step_size=2 $p.schedule.name=multistep $p.schedule.milestones=3
refused $p.schedule.milestones "only with name multistep" $p.schedule.milestones=3
refused $p.schedule.name "needs milestones" $p.schedule=multistep
refused $p.schedule.eta_min "above optimizer.learning_rate (0.001)" $p.schedule.name=cosine $p.schedule.eta_min=0.01
refused stages.federated_train.schedule.eta_min "above optimizer.learning_rate (0.05)" \
    stages.federated_train.schedule.name=warmup_cosine stages.federated_train.schedule.eta_min=0.06
# a rate that changes only behind the last epoch is said: it is right for a short first try
accepted $p.schedule=step $p.epochs=30
said err "$p.schedule.step_size: the first change is after 30 epochs, and there are 30: the learning rate stays 0.001"
accepted $p.schedule=step $p.epochs=31
unsaid err "schedule"
accepted $p.schedule.name=multistep "$p.schedule.milestones=[9, 4]" $p.epochs=4
said err "$p.schedule.milestones: the first change is after 4 epochs, and there are 4"
accepted $p.schedule.name=multistep "$p.schedule.milestones=[9, 4]" $p.epochs=5
unsaid err "schedule"
accepted stages.federated_train.schedule=warmup_cosine stages.federated_train.rounds=5
said err "stages.federated_train.schedule.warmup: is 5, and there are 5 rounds: the learning rate only rises"
accepted stages.federated_train.schedule=warmup_cosine stages.federated_train.rounds=6
unsaid err "schedule"
accepted stages.edge_kd.kd_loss=dkd stages.edge_kd.dkd.warmup_epochs=2
said err "stages.edge_kd.dkd.warmup_epochs: is 2, and there are 1 epochs: kd_weight never gets to 0.7"
refused topology.links "has no effect without stages.edge_infer or stages.cloud_direct_infer" \
    clients=null topology.edges=2 topology.links.edge_cloud.rate=9
refused data.edge_paths "has no effect without stages.federated_train" data.edge_paths="[a, b]" clients=null \
    topology.edges=2 stages.federated_train=null
refused stages.cloud_kd.top_k "only with encoding top_k" stages.cloud_kd.top_k=3
refused stages.edge_kd.dkd "only with kd_loss dkd" stages.edge_kd.dkd.beta=2
refused stages.edge_kd.temperature "only with kd_loss" stages.edge_kd.temperature=4 stages.edge_kd.kd_loss=mse_logits
refused stages.edge_kd.kd_loss "has no effect without kd_weight" stages.edge_kd.kd_loss=kl stages.edge_kd.kd_weight=0
refused data.x "only with source auto or array" data.x=samples
refused data.window "only with source auto or sigmf" data.window=128
refused data.channels "only with source auto or folder" data.channels=1
refused data.height "only with source auto or folder" data.height=28
refused data.synth "only with source synth" data.synth.windows=100

# samples that serve nothing are told: with a strategy of one model for all nobody looks at the clients' own
accepted clients.validation=0.2
said err "clients.validation: no stage looks at these samples"
accepted clients.validation=0.2 $f.strategy=local
unsaid err "clients.validation"
alone="topology.edges=2 stages.cloud_pretrain=null stages.cloud_kd=null stages.edge_kd=null $f.init=random $f.model=logistic_regression"
# shellcheck disable=SC2086
accepted clients=null $alone topology.cloud_share=0.25
said err "15 of 60 training samples belong to the cloud, where no stage trains: a smaller topology.cloud_share"
# shellcheck disable=SC2086
accepted clients=null $alone data.public=0.2 $f.strategy=feddf
unsaid err "where no stage trains"
accepted clients=null topology.edges=2
unsaid err "where no stage trains"
refused clients "classes_per_client must be 1 ... 10, as many as there are, not 11" clients.partition=shards clients.classes_per_client=11
accepted clients.partition=shards clients.classes_per_client=10

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

# ---- cannot work: table by table
k=stages.cloud_kd
refused $k.top_k "cannot hold logits, which edge_kd.kd_loss takes" $k.encoding=top_k $k.top_k=3 stages.edge_kd.kd_loss=dkd
refused $k.top_k "cannot hold logits, which content asks for" $k.encoding=top_k $k.content=logits stages.edge_kd=null $f=null clients=null
refused $k.content "is logits, edge_kd.kd_loss kl takes probabilities" $k.content=logits
refused $k.content "is probabilities, edge_kd.kd_loss dkd takes logits" $k.content=probabilities stages.edge_kd.kd_loss=dkd
refused $k.temperature "must be 1" stages.edge_kd.kd_loss=mse_probabilities
refused stages.edge_kd.temperature "differs from cloud_kd's temperature" stages.edge_kd.temperature=2
refused stages.edge_kd.kd_weight "nothing to learn from" stages.edge_kd.kd_weight=0 stages.edge_kd.ce_weight=0
refused $f.clients_per_round "is 4, there are 3 clients" $f.clients_per_round=4
refused $f.quorum "is 3, a round draws 2 of the 3 clients" $f.quorum=3 $f.clients_per_round=2
refused $f.quorum "is 2, a round draws 1 of the 3 clients" $f.quorum=2 $f.fraction=0.3
refused $f.quorum "is 4, a round draws 3 of the 3 clients" $f.quorum=4
accepted $f.quorum=2 $f.fraction=0.6
refused $f.select "needs a topology" $f.select=best
# ---- and with the data
refused $k.top_k "is 11, the data have 10 classes" $k.encoding=top_k $k.top_k=11
accepted $k.encoding=top_k $k.top_k=10
refused clients "5 clients" clients.count=5 clients.min_samples=13
refused data.crop_padding "smaller than the images" data.crop_padding=28
refused data.x "has no effect with source idx" data.x=samples data.source=auto
refused data.window "has no effect with source idx" data.window=16 data.source=auto
refused $p.model "mobilenet_v2" $p.model=link11 # no such network
refused $p.model "needs (2, ...)" $p.model=complex_resnet50_link11_with_attention # signals, not images
"$FEDSTILL" data synth modulation --count 88 --out "$folder/signals.safetensors" >/dev/null 2>&1
"$FEDSTILL" data synth modulation --first 88 --count 44 --out "$folder/signals.test.safetensors" >/dev/null 2>&1
mkdir "$folder/signals" && mv "$folder/signals.safetensors" "$folder/signals/train.safetensors" &&
    mv "$folder/signals.test.safetensors" "$folder/signals/test.safetensors"
refused data.flip "only images" data.source=array data.path="$folder/signals" data.flip=true
refused data.crop_padding "only images" data.source=array data.path="$folder/signals" data.crop_padding=2

# ---- model files of the cascade, stages that are not there yet, the output folder: the dry run says so too
cascade=(stages.device_load.batch_size=8 stages.edge_infer.threshold=0.5)
sets=()
for setting in "${cascade[@]}"; do sets+=(--set "$setting"); done
for mode in --dry-run --quiet; do
    rm -rf "$task/output"
    expect 1 run "$task" $mode --mode full_pipeline "${sets[@]}" --set stages.edge_infer.model=nowhere.safetensors
    said err stages.edge_infer.model
    said err nowhere.safetensors
    same "$last: artifacts" "$(find "$task/output" -name '*.safetensors' 2>/dev/null)" ""
    expect 2 run "$task" $mode --stage edge_kd
    said err "edge_kd needs cloud_kd"
done
: >"$folder/file"
expect 1 run "$task" --dry-run --set output="$folder/file"
said err "there is a file of the name $folder/file"
expect 1 run "$task" --dry-run --set output="$folder/file/below"
said err "$folder/file"
expect 0 run "$task" --dry-run --set output="$folder/new/deep"
true_that "a dry run made its output folder" [ ! -e "$folder/new" ]

# ---- a stage that is done again says which of its inputs changed
again() { # TEXT ARGUMENT...
    local text=$1
    shift
    expect 0 run "$task" --no-reuse "$@"
    said err "$text"
}
rm -rf "$task/output"
expect 0 run "$task" --no-reuse
unsaid err "is done again"
again "federated_train is done again: clients.count was 3 and is 2" --set clients.count=2
again "edge_kd is done again: stages.edge_kd.optimizer.learning_rate was 0.001 and is 0.01" --set clients.count=2 \
    --set stages.edge_kd.optimizer.learning_rate=0.01
again "cloud_pretrain is done again: seed was 3 and is 4" --set seed=4 --mode pretrain

# lines that are called alike are compared each with its own, and what did not change is not named
more=$folder/more
mkdir "$more"
{
    cat "$task/task.yaml"
    cat <<END
  device_load:     {}
  edge_infer:      {threshold: 0.9, runs: 1, repeats: 1}
  cloud_infer:     {runs: 1, repeats: 1}
topology: {edges: 2, devices: 4, alpha: 100}
END
} | sed '/^clients/d' >"$more/task.yaml"
more() { expect 0 run "$more" --mode full_pipeline --no-reuse "$@"; }
more
more --set stages.federated_train.rounds=2
said err "edge_infer is done again: its input model is another"
unsaid err "link"
more --set stages.federated_train.rounds=2 --set topology.links.edge_cloud.rate=9
said err "topology.links.edge_cloud (rate, latency) was 8 0.02"
unsaid err "device_cloud"
expect 2 run "$more" --dry-run --mode full_pipeline --set topology.devices=31
said err "30 samples are too few to give each of 31 devices 1"
more --set stages.federated_train.init=random
said err "its input edge_kd is another"
unsaid err "samples (edge_kd)"

finish
